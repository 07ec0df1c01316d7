package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Table is the one table this program owns; nothing else is touched.
const Table = "inet folkmoot_netpol"

// prologue of the table. What it lets pass, and why:
//
//  1. Answers: policies govern who may open a connection, not its replies.
//  2. From the node to a pod: probes. Such packets never reach the forward hook.
//  3. A pod to itself, also by way of a Service: it cannot be cut off from itself.
//
// IPv6 is dropped: pods have link-local addresses nobody asked for, and rules
// about IPv4 addresses would not see what passes between them.
//
// The input hook is for pods that call the node itself (the API server behind
// its Service among others): the egress of a pod ends there, not in forward.
// Destination addresses are pods' own here: kube-proxy rewrites earlier.
const prologue = `table inet folkmoot_netpol
delete table inet folkmoot_netpol
table inet folkmoot_netpol {
`

// Render is the text of the table, for `nft -f -`, which applies it all at once
// or not at all. The same isolations give the same text.
func Render(isolations []Isolation) string {
	var text strings.Builder
	text.WriteString(prologue)
	for _, isolation := range isolations {
		renderChain(&text, "ingress", "saddr", "daddr", isolation, isolation.Ingress)
		renderChain(&text, "egress", "daddr", "saddr", isolation, isolation.Egress)
	}
	renderMap(&text, "ingress", isolations, func(each Isolation) bool { return each.Ingress != nil })
	renderMap(&text, "egress", isolations, func(each Isolation) bool { return each.Egress != nil })
	text.WriteString(`	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		meta nfproto ipv6 drop
		ip saddr vmap @egress
		ip daddr vmap @ingress
	}
	chain input {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		ip saddr vmap @egress
	}
}
`)
	return text.String()
}

// renderChain writes what decides about one pod and direction: `return` goes on
// to the other direction's check, the end drops.
func renderChain(text *strings.Builder, direction, peer, own string, isolation Isolation, allowed *[]Allowance) {
	if allowed == nil {
		return
	}
	fmt.Fprintf(text, "\tchain %s { # %s\n", chainName(direction, isolation.Address), isolation.Pod)
	fmt.Fprintf(text, "\t\tip %s %s return\n", peer, isolation.Address)
	for _, allowance := range *allowed {
		for _, line := range renderAllowance(peer, allowance) {
			fmt.Fprintf(text, "\t\t%s\n", line)
		}
	}
	text.WriteString("\t\tdrop\n\t}\n")
}

func renderMap(text *strings.Builder, direction string, isolations []Isolation, isolated func(Isolation) bool) {
	var elements []string
	for _, each := range isolations {
		if isolated(each) {
			elements = append(elements, fmt.Sprintf("%s : jump %s", each.Address, chainName(direction, each.Address)))
		}
	}
	fmt.Fprintf(text, "\tmap %s {\n\t\ttype ipv4_addr : verdict\n", direction)
	if len(elements) > 0 {
		fmt.Fprintf(text, "\t\telements = { %s }\n", strings.Join(elements, ", "))
	}
	text.WriteString("\t}\n")
}

func chainName(direction string, address netip.Addr) string {
	return direction + "_" + strings.ReplaceAll(address.String(), ".", "_")
}

func renderAllowance(peer string, allowance Allowance) []string {
	match := renderPeer(peer, allowance)
	if len(allowance.Ports) == 0 {
		return []string{match + "return"}
	}
	var lines []string
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		ranges := merge(allowance.Ports, protocol)
		if len(ranges) > 0 {
			name := strings.ToLower(string(protocol))
			lines = append(lines, fmt.Sprintf("%s%s dport { %s } return", match, name, strings.Join(ranges, ", ")))
		}
	}
	return lines
}

// Holes are matches of their own, not a set: nft refuses sets that overlap.
func renderPeer(direction string, allowance Allowance) string {
	switch {
	case allowance.Everyone:
		return ""
	case allowance.Block != nil:
		text := ""
		if allowance.Block.Range.Bits() > 0 { // nft has no word for 0.0.0.0/0
			text = fmt.Sprintf("ip %s %s ", direction, allowance.Block.Range)
		}
		for _, hole := range allowance.Block.Except {
			text += fmt.Sprintf("ip %s != %s ", direction, hole)
		}
		return text
	}
	var listed []string
	for _, address := range allowance.Addresses {
		listed = append(listed, address.String())
	}
	return fmt.Sprintf("ip %s { %s } ", direction, strings.Join(listed, ", "))
}

// merge gives a protocol's ranges in order and without overlap, as nft wants them.
func merge(ports []Ports, protocol corev1.Protocol) []string {
	var ranges []Ports
	for _, each := range ports {
		if each.Protocol == protocol {
			ranges = append(ranges, each)
		}
	}
	slices.SortFunc(ranges, func(a, b Ports) int { return int(a.First) - int(b.First) })
	var merged []Ports
	for _, each := range ranges {
		last := len(merged) - 1
		if last >= 0 && int(each.First) <= int(merged[last].Last)+1 {
			merged[last].Last = max(merged[last].Last, each.Last)
			continue
		}
		merged = append(merged, each)
	}
	var words []string
	for _, each := range merged {
		if each.First == each.Last {
			words = append(words, fmt.Sprint(each.First))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", each.First, each.Last))
		}
	}
	return words
}
