// Package netpol enforces NetworkPolicies on the embedded cluster's one node.
//
// Three layers, so that the meaning can be tested without a kernel:
//
//	Compile  policies, pods, namespaces -> for each isolated pod, what may pass   (pure)
//	Render   that -> the text of one nftables table                               (pure)
//	watch    informers in front, `nft -f -` behind
//
// It is test equipment: IPv4 only, one node, no status. What it does not know
// it refuses; see Render for traffic it leaves alone on purpose.
package netpol

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// World is everything the meaning of policies depends on.
type World struct {
	Policies   []*networkingv1.NetworkPolicy
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
}

// Isolation is one pod that at least one policy selects. A nil direction is not
// isolated; an empty one is isolated and lets nothing pass.
type Isolation struct {
	Pod     string // namespace/name, for people
	Address netip.Addr
	Ingress *[]Allowance
	Egress  *[]Allowance
}

// Allowance lets traffic with these peers on these ports pass. No ports means
// every port of every protocol.
type Allowance struct {
	Everyone  bool
	Addresses []netip.Addr
	Block     *Block
	Ports     []Ports
}

// Block is a range of addresses with holes.
type Block struct {
	Range  netip.Prefix
	Except []netip.Prefix
}

// Ports is a range of ports of one protocol, both ends included.
type Ports struct {
	Protocol    corev1.Protocol
	First, Last uint16
}

var everyPort = Ports{First: 0, Last: 65535}

// Compile says what each isolated pod may exchange with whom.
func Compile(world World) []Isolation {
	index := newIndex(world)
	isolations := map[netip.Addr]*Isolation{}
	for _, policy := range world.Policies {
		for _, pod := range index.selected(&policy.Spec.PodSelector, policy.Namespace) {
			isolation := isolations[pod.address]
			if isolation == nil {
				isolation = &Isolation{Pod: pod.namespace + "/" + pod.name, Address: pod.address}
				isolations[pod.address] = isolation
			}
			index.isolate(isolation, policy, pod)
		}
	}
	sorted := make([]Isolation, 0, len(isolations))
	for _, isolation := range isolations {
		sorted = append(sorted, *isolation)
	}
	slices.SortFunc(sorted, func(a, b Isolation) int { return a.Address.Compare(b.Address) })
	return sorted
}

// endpoint is a pod that has an address of its own and has not ended.
type endpoint struct {
	namespace, name string
	address         netip.Addr
	labels          labels.Set
	ports           []corev1.ContainerPort
}

type index struct {
	byNamespace map[string][]endpoint
	namespaces  map[string]labels.Set
}

func newIndex(world World) index {
	made := index{map[string][]endpoint{}, map[string]labels.Set{}}
	for _, namespace := range world.Namespaces {
		made.namespaces[namespace.Name] = namespace.Labels
	}
	for _, pod := range world.Pods {
		if found, ok := newEndpoint(pod); ok {
			made.byNamespace[pod.Namespace] = append(made.byNamespace[pod.Namespace], found)
		}
	}
	return made
}

// newEndpoint leaves out pods on the node's own network, which policies do not
// govern, and pods that have ended, whose address may be another's by now.
func newEndpoint(pod *corev1.Pod) (endpoint, bool) {
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	address, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || ended || pod.Spec.HostNetwork || !address.Is4() {
		return endpoint{}, false
	}
	made := endpoint{namespace: pod.Namespace, name: pod.Name, address: address, labels: pod.Labels}
	for _, container := range pod.Spec.Containers {
		made.ports = append(made.ports, container.Ports...)
	}
	for _, container := range pod.Spec.InitContainers {
		if container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			made.ports = append(made.ports, container.Ports...)
		}
	}
	return made, true
}

func (x index) selected(selector *metav1.LabelSelector, namespace string) []endpoint {
	var found []endpoint
	for _, pod := range x.byNamespace[namespace] {
		if matches(selector, pod.labels) {
			found = append(found, pod)
		}
	}
	return found
}

// matches is false for a selector that cannot be read: the API server refuses
// such ones, and selecting nothing denies where it is used for a peer.
func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

func (x index) isolate(isolation *Isolation, policy *networkingv1.NetworkPolicy, pod endpoint) {
	ingress, egress := directions(policy)
	if ingress {
		added := x.ingress(policy, pod)
		isolation.Ingress = extend(isolation.Ingress, added)
	}
	if egress {
		added := x.egress(policy)
		isolation.Egress = extend(isolation.Egress, added)
	}
}

// directions that a policy isolates, with the API's defaults for an empty list.
func directions(policy *networkingv1.NetworkPolicy) (ingress, egress bool) {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		return true, len(policy.Spec.Egress) > 0
	}
	return slices.Contains(types, networkingv1.PolicyTypeIngress), slices.Contains(types, networkingv1.PolicyTypeEgress)
}

func extend(present *[]Allowance, added []Allowance) *[]Allowance {
	if present == nil {
		present = &[]Allowance{}
	}
	extended := append(*present, added...)
	return &extended
}

func (x index) ingress(policy *networkingv1.NetworkPolicy, pod endpoint) []Allowance {
	var allowed []Allowance
	for _, rule := range policy.Spec.Ingress {
		ports, every := resolve(rule.Ports, pod.ports)
		if len(ports) == 0 && !every {
			continue // every port was a name this pod does not have
		}
		for _, peer := range x.peers(rule.From, policy.Namespace) {
			peer.Ports = ports
			allowed = append(allowed, peer.Allowance)
		}
	}
	return allowed
}

// egress resolves named ports at each destination, since the names are its own.
func (x index) egress(policy *networkingv1.NetworkPolicy) []Allowance {
	var allowed []Allowance
	for _, rule := range policy.Spec.Egress {
		for _, peer := range x.peers(rule.To, policy.Namespace) {
			ports, every := resolve(rule.Ports, nil)
			if len(ports) > 0 || every {
				peer.Ports = ports
				allowed = append(allowed, peer.Allowance)
			}
			allowed = append(allowed, x.named(peer, rule.Ports)...)
		}
	}
	return allowed
}

// named is what names of ports allow at pods among the peers; a block has none.
func (x index) named(peer peer, ports []networkingv1.NetworkPolicyPort) []Allowance {
	names := slices.DeleteFunc(slices.Clone(ports), func(port networkingv1.NetworkPolicyPort) bool {
		return port.Port == nil || port.Port.Type != intstr.String
	})
	if len(names) == 0 {
		return nil
	}
	destinations := peer.endpoints
	if peer.Everyone {
		destinations = x.all()
	}
	var allowed []Allowance
	for _, destination := range destinations {
		if found, _ := resolve(names, destination.ports); len(found) > 0 {
			allowed = append(allowed, Allowance{Addresses: []netip.Addr{destination.address}, Ports: found})
		}
	}
	return allowed
}

func (x index) all() []endpoint {
	var everyone []endpoint
	for _, pods := range x.byNamespace {
		everyone = append(everyone, pods...)
	}
	slices.SortFunc(everyone, func(a, b endpoint) int { return a.address.Compare(b.address) })
	return everyone
}

type peer struct {
	Allowance
	endpoints []endpoint
}

// peers of a rule: no list means everyone; a list of pods that are not there
// (yet) means nobody.
func (x index) peers(listed []networkingv1.NetworkPolicyPeer, namespace string) []peer {
	if len(listed) == 0 {
		return []peer{{Allowance: Allowance{Everyone: true}}}
	}
	var found []peer
	for _, each := range listed {
		if each.IPBlock != nil {
			if block, ok := newBlock(each.IPBlock); ok {
				found = append(found, peer{Allowance: Allowance{Block: &block}})
			}
			continue
		}
		if pods := x.pods(each, namespace); len(pods) > 0 {
			found = append(found, peer{Allowance{Addresses: addresses(pods)}, pods})
		}
	}
	return found
}

func (x index) pods(wanted networkingv1.NetworkPolicyPeer, own string) []endpoint {
	selector := wanted.PodSelector
	if selector == nil {
		selector = &metav1.LabelSelector{} // a namespaceSelector alone takes all its pods
	}
	if wanted.NamespaceSelector == nil {
		return x.selected(selector, own)
	}
	var found []endpoint
	for name, set := range x.namespaces {
		if matches(wanted.NamespaceSelector, set) {
			found = append(found, x.selected(selector, name)...)
		}
	}
	return found
}

func addresses(pods []endpoint) []netip.Addr {
	var found []netip.Addr
	for _, pod := range pods {
		found = append(found, pod.address)
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found)
}

// newBlock is false for IPv6 blocks: no pod here has such an address.
func newBlock(block *networkingv1.IPBlock) (Block, bool) {
	whole, err := netip.ParsePrefix(block.CIDR)
	if err != nil || !whole.Addr().Is4() {
		return Block{}, false
	}
	made := Block{Range: whole.Masked()}
	for _, text := range block.Except {
		hole, err := netip.ParsePrefix(text)
		if err != nil {
			return Block{}, false // a hole that cannot be read must not become an allowance
		}
		made.Except = append(made.Except, hole.Masked())
	}
	return made, true
}

// resolve turns a rule's ports into numbers; `every` says that the rule names no
// ports, which allows all. Names are looked up in the destination's ports.
func resolve(wanted []networkingv1.NetworkPolicyPort, offered []corev1.ContainerPort) (found []Ports, every bool) {
	if len(wanted) == 0 {
		return nil, true
	}
	for _, port := range wanted {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		switch {
		case port.Port == nil:
			found = append(found, Ports{protocol, everyPort.First, everyPort.Last})
		case port.Port.Type == intstr.Int:
			first := uint16(port.Port.IntVal)
			last := first
			if port.EndPort != nil {
				last = uint16(*port.EndPort)
			}
			found = append(found, Ports{protocol, first, last})
		default:
			for _, each := range offered {
				if each.Name == port.Port.StrVal && cmp.Or(each.Protocol, corev1.ProtocolTCP) == protocol {
					found = append(found, Ports{protocol, uint16(each.ContainerPort), uint16(each.ContainerPort)})
				}
			}
		}
	}
	return found, false
}
