package netpol

import (
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// The cast, the same in every row. Ports are what the pods call http and dns.
//
//	ns blue  (team=blue)   web 10.0.1.1 app=web http=8080 | db 10.0.1.2 app=db http=9090
//	ns red   (team=red)    web 10.0.2.1 app=web http=8081 | spy 10.0.2.2 app=spy
//	ns sys   (team=sys)    dns 10.0.3.1 app=dns dns=53/UDP
//	outside 203.0.113.9, 198.51.100.7; the node is 10.9.9.9
var cast = map[string]string{
	"blue/web": "10.0.1.1", "blue/db": "10.0.1.2",
	"red/web": "10.0.2.1", "red/spy": "10.0.2.2",
	"sys/dns": "10.0.3.1",
	"outside": "203.0.113.9", "elsewhere": "198.51.100.7", "node": "10.9.9.9",
}

func world(t *testing.T, policies string) World {
	t.Helper()
	made := World{}
	for _, name := range []string{"blue", "red", "sys"} {
		made.Namespaces = append(made.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"team": name},
		}})
	}
	ports := map[string]corev1.ContainerPort{
		"blue/web": {Name: "http", ContainerPort: 8080},
		"blue/db":  {Name: "http", ContainerPort: 9090, Protocol: corev1.ProtocolTCP},
		"red/web":  {Name: "http", ContainerPort: 8081},
		"sys/dns":  {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
	}
	for name, address := range cast {
		namespace, pod, inside := strings.Cut(name, "/")
		if inside {
			made.Pods = append(made.Pods, newPod(namespace, pod, address, ports[name]))
		}
	}
	for _, document := range strings.Split(policies, "---\n") {
		policy := &networkingv1.NetworkPolicy{}
		if err := yaml.UnmarshalStrict([]byte(document), policy); err != nil {
			t.Fatal(err)
		}
		made.Policies = append(made.Policies, policy)
	}
	return made
}

func newPod(namespace, name, address string, ports ...corev1.ContainerPort) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address},
	}
}

// Each row: policies, then "from > to protocol port" that must pass and must not.
// Written by hand from the API's documentation, not from what the code gives.
var rows = []struct{ name, policies, pass, refuse string }{
	{
		name:     "a policy of another pod isolates nobody else",
		policies: policy("blue", "{podSelector: {matchLabels: {app: nobody}}, policyTypes: [Ingress, Egress]}"),
		pass:     "red/spy > blue/web tcp 8080\nblue/web > outside tcp 443\nblue/web > node tcp 6443",
	},
	{
		name:     "default deny of ingress leaves egress alone",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Ingress]}"),
		pass:     "blue/web > outside tcp 443\nblue/web > red/web tcp 8081\nred/spy > red/web tcp 1",
		refuse:   "red/spy > blue/web tcp 8080\nblue/db > blue/web tcp 8080\noutside > blue/web tcp 8080\nblue/web > blue/db udp 1",
	},
	{
		name:     "default deny of egress covers the node and the outside, and no ingress",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Egress]}"),
		pass:     "red/spy > blue/web tcp 8080\noutside > blue/web tcp 8080",
		refuse:   "blue/web > node tcp 6443\nblue/web > outside tcp 443\nblue/web > blue/db tcp 9090\nblue/web > sys/dns udp 53",
	},
	{
		name:     "no policyTypes: ingress always, egress not without rules",
		policies: policy("blue", "{podSelector: {}}"),
		pass:     "blue/web > outside tcp 443",
		refuse:   "outside > blue/web tcp 8080",
	},
	{
		name:     "no policyTypes: egress once it has rules",
		policies: policy("blue", "{podSelector: {}, egress: [{ports: [{port: 443}]}]}"),
		pass:     "blue/web > outside tcp 443",
		refuse:   "blue/web > outside tcp 80\noutside > blue/web tcp 8080",
	},
	{
		name:     "a pod always reaches itself",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
		pass:     "blue/web > blue/web tcp 8080",
		refuse:   "blue/web > blue/db tcp 9090",
	},
	{
		name:     "podSelector means the policy's own namespace",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"),
		pass:     "blue/web > blue/db tcp 9090\nblue/web > blue/db udp 5",
		refuse:   "red/web > blue/db tcp 9090\nblue/db > blue/web tcp 8080",
	},
	{
		name:     "namespaceSelector alone takes every pod there",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}"),
		pass:     "red/web > blue/db tcp 9090\nred/spy > blue/web tcp 1",
		refuse:   "sys/dns > blue/db tcp 9090\nblue/web > blue/db tcp 9090",
	},
	{
		name: "both selectors in one peer are and",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, "+
			"podSelector: {matchLabels: {app: web}}}]}]}"),
		pass:   "red/web > blue/db tcp 9090",
		refuse: "red/spy > blue/db tcp 9090\nblue/web > blue/db tcp 9090",
	},
	{
		name: "two peers in one rule are or",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}, "+
			"{podSelector: {matchLabels: {app: web}}}]}]}"),
		pass:   "red/spy > blue/db tcp 9090\nblue/web > blue/db tcp 9090",
		refuse: "sys/dns > blue/db tcp 9090\noutside > blue/db tcp 9090",
	},
	{
		name:     "an empty namespaceSelector is every namespace but not the outside",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"),
		pass:     "sys/dns > blue/db tcp 9090\nred/spy > blue/db tcp 9090",
		refuse:   "outside > blue/db tcp 9090",
	},
	{
		name:     "matchExpressions",
		policies: policy("blue", "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}, policyTypes: [Ingress]}"),
		pass:     "red/spy > blue/db tcp 9090",
		refuse:   "red/spy > blue/web tcp 8080",
	},
	{
		name:     "an ingress rule without from lets everyone in on its ports",
		policies: policy("blue", "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8080}]}]}"),
		pass:     "outside > blue/web tcp 8080\nred/spy > blue/web tcp 8080",
		refuse:   "outside > blue/web tcp 8081\noutside > blue/web udp 8080",
	},
	{
		name:     "an empty rule lets everything in",
		policies: policy("blue", "{podSelector: {}, ingress: [{}]}"),
		pass:     "outside > blue/web tcp 1\nred/spy > blue/web sctp 9",
	},
	{
		name:     "selectors that match nobody let nobody in",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: ghost}}}]}]}"),
		refuse:   "outside > blue/web tcp 8080\nblue/db > blue/web tcp 8080",
	},
	{
		name: "ipBlock with except",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, "+
			"except: [10.0.0.0/8, 198.51.100.0/24]}}], ports: [{port: 443}]}]}"),
		pass:   "blue/web > outside tcp 443",
		refuse: "blue/web > elsewhere tcp 443\nblue/web > red/web tcp 443\nblue/web > node tcp 443\nblue/web > outside tcp 80",
	},
	{
		name:     "ipBlock of a range, without holes and ports",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}"),
		pass:     "outside > blue/web tcp 1\noutside > blue/web udp 2",
		refuse:   "elsewhere > blue/web tcp 1\nred/web > blue/web tcp 1",
	},
	{
		name:     "an IPv6 block allows no IPv4 peer",
		policies: policy("blue", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '2001:db8::/32'}}]}]}"),
		refuse:   "outside > blue/web tcp 1",
	},
	{
		name:     "ports: protocol defaults to TCP, ranges have both ends, no port is all of the protocol",
		policies: policy("blue", "{podSelector: {}, ingress: [{ports: [{port: 1000, endPort: 1002}, {protocol: UDP, port: 53}, {protocol: SCTP}]}]}"),
		pass:     "red/spy > blue/web tcp 1000\nred/spy > blue/web tcp 1002\nred/spy > blue/web udp 53\nred/spy > blue/web sctp 7",
		refuse:   "red/spy > blue/web tcp 999\nred/spy > blue/web tcp 1003\nred/spy > blue/web udp 54\nred/spy > blue/web tcp 53",
	},
	{
		name:     "overlapping ranges",
		policies: policy("blue", "{podSelector: {}, ingress: [{ports: [{port: 10, endPort: 20}, {port: 15, endPort: 30}, {port: 15}, {port: 31}, {port: 30, endPort: 31}]}]}"),
		pass:     "red/spy > blue/web tcp 10\nred/spy > blue/web tcp 25\nred/spy > blue/web tcp 31",
		refuse:   "red/spy > blue/web tcp 9\nred/spy > blue/web tcp 32",
	},
	{
		name:     "a named port of ingress is the selected pod's own",
		policies: policy("blue", "{podSelector: {}, ingress: [{ports: [{port: http}]}]}"),
		pass:     "red/spy > blue/web tcp 8080\nred/spy > blue/db tcp 9090",
		refuse:   "red/spy > blue/web tcp 9090\nred/spy > blue/db tcp 8080",
	},
	{
		name:     "a named port that the pod does not have allows nothing",
		policies: policy("blue", "{podSelector: {}, ingress: [{ports: [{port: metrics}]}]}"),
		refuse:   "red/spy > blue/web tcp 8080\nred/spy > blue/web tcp 1",
	},
	{
		name:     "a named port of egress is each destination's",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}"),
		pass:     "blue/db > blue/web tcp 8080\nblue/db > red/web tcp 8081",
		refuse:   "blue/db > red/web tcp 8080\nblue/db > red/spy tcp 8081\nblue/db > outside tcp 8080",
	},
	{
		name: "a named port has a protocol",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: dns, protocol: UDP}]}]}") + "---\n" +
			policy("red", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: dns}]}]}"),
		pass:   "blue/web > sys/dns udp 53",
		refuse: "blue/web > sys/dns tcp 53\nred/web > sys/dns udp 53\nred/web > sys/dns tcp 53\nblue/web > outside udp 53",
	},
	{
		name: "policies of one pod add up",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Ingress, Egress]}") + "---\n" +
			policy("blue", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 9090}]}]}") + "---\n" +
			policy("blue", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}"),
		pass:   "blue/web > blue/db tcp 9090",
		refuse: "blue/web > blue/db tcp 9091\nblue/db > blue/web tcp 8080\nred/web > blue/db tcp 9090\nblue/web > outside tcp 1",
	},
	{
		name: "both ends must agree",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: red}}}]}]}") + "---\n" +
			policy("red", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}"),
		pass:   "blue/web > red/spy tcp 1",
		refuse: "blue/web > red/web tcp 8081",
	},
	{
		name: "a tenant of ours: own namespace, DNS, one port of the operator, nothing else",
		policies: policy("blue", "{podSelector: {}, policyTypes: [Ingress, Egress]}") + "---\n" +
			policy("blue", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: ["+
				"{to: [{namespaceSelector: {matchLabels: {team: sys}}, podSelector: {matchLabels: {app: dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}, "+
				"{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 9090}]}]}"),
		pass:   "blue/web > sys/dns udp 53\nblue/web > sys/dns tcp 53",
		refuse: "blue/web > sys/dns tcp 80\nblue/web > blue/db tcp 9090\nblue/web > red/web tcp 53\nred/web > blue/web tcp 8080\nblue/web > node tcp 6443",
	},
}

func policy(namespace, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: any, namespace: " + namespace + "}\nspec: " + spec + "\n"
}

func TestReachability(t *testing.T) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			rules := read(t, Render(Compile(world(t, row.policies))))
			expect(t, rules, row.pass, true)
			expect(t, rules, row.refuse, false)
		})
	}
}

func expect(t *testing.T, rules ruleset, lines string, pass bool) {
	t.Helper()
	for _, line := range strings.Split(lines, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		sent := packet{cast[words[0]], cast[words[2]], words[3], words[4]}
		if got := rules.passes(t, sent); got != pass {
			t.Errorf("%s: passes = %v, want %v", line, got, pass)
		}
	}
}

func TestEndedAndHostNetworkPodsAreNobody(t *testing.T) {
	made := world(t, policy("blue", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}"))
	for _, pod := range made.Pods {
		switch pod.Namespace + "/" + pod.Name {
		case "red/web":
			pod.Status.Phase = corev1.PodFailed
		case "red/spy":
			pod.Spec.HostNetwork = true
		case "blue/db":
			pod.Status.Phase = corev1.PodSucceeded
		}
	}
	rules := read(t, Render(Compile(made)))
	expect(t, rules, "red/web > blue/web tcp 1\nred/spy > blue/web tcp 1", false)
	expect(t, rules, "red/web > blue/db tcp 1", true) // the address may be another's: not isolated by the old owner
}

func TestSameWorldSameText(t *testing.T) {
	text := "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}], egress: [{ports: [{port: http}]}]}"
	first := Render(Compile(world(t, policy("blue", text))))
	for range 20 { // maps are walked in another order each time
		if Render(Compile(world(t, policy("blue", text)))) != first {
			t.Fatal("the rendered table depends on the order of maps")
		}
	}
}

// nft's own parser reads every table; needs the program, and root for its sockets.
func TestNftAcceptsEveryTable(t *testing.T) {
	if err := exec.Command("nft", "--check", "list", "tables").Run(); err != nil {
		t.Skip("nft cannot be used here")
	}
	for _, row := range rows {
		command := exec.Command("unshare", "--net", "nft", "--check", "-f", "-")
		command.Stdin = strings.NewReader(Render(Compile(world(t, row.policies))))
		if said, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", row.name, err, said)
		}
	}
}

func TestAnAnnouncedAddressGoesAheadOfTheStatus(t *testing.T) {
	fresh, stale := newPod("blue", "web", ""), newPod("red", "spy", "10.0.1.1")
	placed := placements{}
	placed.add(types.NamespacedName{Namespace: "blue", Name: "web"}, "10.0.1.1")
	got := placed.place([]*corev1.Pod{fresh, stale})
	if len(got) != 1 || got[0].Name != "web" || got[0].Status.PodIP != "10.0.1.1" {
		t.Errorf("want blue/web alone at 10.0.1.1, got %v", got)
	}
	if fresh.Status.PodIP != "" {
		t.Error("the informer's object was changed")
	}
	placed.add(types.NamespacedName{Namespace: "red", Name: "spy"}, "10.0.1.1")
	if got = placed.place([]*corev1.Pod{fresh, stale}); len(got) != 2 {
		t.Errorf("after red/spy took the address over both are known, got %v", got)
	}
	placed.place(nil)
	if len(placed) != 0 {
		t.Errorf("pods that are gone are remembered: %v", placed)
	}
}

// -- a reader of the rendered text, made for the few words it uses; an unknown word fails the test --

type packet struct{ from, to, protocol, port string }

type ruleset struct {
	chains map[string][]string
	maps   map[string]map[string]string
}

func read(t *testing.T, text string) ruleset {
	t.Helper()
	rules := ruleset{map[string][]string{}, map[string]map[string]string{}}
	var kind, name string
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, " #")
		words := strings.Fields(line)
		switch {
		case len(words) == 3 && (words[0] == "chain" || words[0] == "map"):
			kind, name = words[0], words[1]
			rules.maps[name] = map[string]string{}
		case len(words) == 0 || words[0] == "}" || words[0] == "table" || words[0] == "delete" || words[0] == "type":
		case kind == "map":
			inner := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "elements = { "), " }")
			for _, element := range strings.Split(inner, ", ") {
				key, verdict, _ := strings.Cut(element, " : jump ")
				rules.maps[name][key] = verdict
			}
		default:
			rules.chains[name] = append(rules.chains[name], strings.TrimSpace(line))
		}
	}
	return rules
}

// passes says what happens to the first packet of a connection, on its way
// through the forward hook, or the input hook when it is for the node.
func (r ruleset) passes(t *testing.T, sent packet) bool {
	t.Helper()
	hook := "forward"
	if sent.to == cast["node"] {
		hook = "input"
	}
	return r.walk(t, hook, sent) != "drop"
}

func (r ruleset) walk(t *testing.T, chain string, sent packet) string {
	t.Helper()
	lines, exists := r.chains[chain]
	if !exists {
		t.Fatalf("jump to %s, which does not exist", chain)
	}
	for _, line := range lines {
		verdict := r.line(t, strings.Fields(strings.NewReplacer("{", "", "}", "", ",", "").Replace(line)), sent)
		if verdict == "drop" || verdict == "return" {
			return verdict
		}
	}
	return "end"
}

func (r ruleset) line(t *testing.T, words []string, sent packet) string {
	t.Helper()
	values := map[string]string{"saddr": sent.from, "daddr": sent.to}
	for len(words) > 0 {
		switch {
		case words[0] == "ct" || words[0] == "meta": // a first packet, of IPv4
			return "no match"
		case words[0] == "drop" || words[0] == "return":
			return words[0]
		case words[0] == "ip" && words[2] == "vmap":
			chain, found := r.maps[strings.TrimPrefix(words[3], "@")][values[words[1]]]
			if found && r.walk(t, chain, sent) == "drop" {
				return "drop"
			}
			return "no match"
		case words[0] == "ip" && words[2] == "!=":
			if within(t, words[3], values[words[1]]) {
				return "no match"
			}
			words = words[4:]
		case words[0] == "ip":
			length, matched := anyOf(words[2:], func(word string) bool { return within(t, word, values[words[1]]) })
			if !matched {
				return "no match"
			}
			words = words[2+length:]
		case words[1] == "dport":
			length, matched := anyOf(words[2:], func(word string) bool { return inRange(t, word, sent.port) })
			if !matched || words[0] != sent.protocol {
				return "no match"
			}
			words = words[2+length:]
		default:
			t.Fatalf("cannot read %q", words)
		}
	}
	t.Fatal("a rule without a verdict")
	return ""
}

// anyOf tries the words of a set, which ends where the next match or verdict begins.
func anyOf(words []string, matches func(string) bool) (length int, matched bool) {
	for length < len(words) && strings.ContainsAny(words[length][:1], "0123456789") {
		matched = matches(words[length]) || matched
		length++
	}
	return length, matched
}

func within(t *testing.T, text, address string) bool {
	t.Helper()
	if !strings.Contains(text, "/") {
		return text == address
	}
	return netip.MustParsePrefix(text).Contains(netip.MustParseAddr(address))
}

func inRange(t *testing.T, text, port string) bool {
	t.Helper()
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	return number(t, first) <= number(t, port) && number(t, port) <= number(t, last)
}

func number(t *testing.T, text string) int {
	t.Helper()
	value, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
