package netpol

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// debounce gathers what one `kubectl apply` of several objects changes.
	debounce = 50 * time.Millisecond
	// refresh puts the table back should anybody have removed it, and retries
	// after a failure.
	refresh = 5 * time.Second
)

// Command is `netpol --kubeconfig FILE --gate SOCKET`, to be run in the node's
// network namespace.
func Command() *cobra.Command {
	var kubeconfig, gate string
	command := &cobra.Command{
		Use:   "netpol",
		Short: "enforce NetworkPolicies with nftables in this network namespace",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return enforce(ctx, client, gate)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "who to talk to")
	command.Flags().StringVar(&gate, "gate", "", "socket at which the CNI gate announces pods")
	return command
}

// enforcer's fields below `announced` belong to the goroutine that runs loop.
type enforcer struct {
	policies      networkinglisters.NetworkPolicyLister
	pods          corelisters.PodLister
	namespaces    corelisters.NamespaceLister
	changed       chan struct{}
	announcements chan announcement

	announced placements
	applied   string
}

// enforce runs until the context ends. The table stays behind: should this
// program die, what was forbidden stays forbidden.
func enforce(ctx context.Context, client kubernetes.Interface, gate string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	e := &enforcer{
		policies:      factory.Networking().V1().NetworkPolicies().Lister(),
		pods:          factory.Core().V1().Pods().Lister(),
		namespaces:    factory.Core().V1().Namespaces().Lister(),
		changed:       make(chan struct{}, 1),
		announcements: make(chan announcement),
		announced:     placements{},
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Networking().V1().NetworkPolicies().Informer(),
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
	} {
		if _, err := informer.AddEventHandler(e.handler()); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := e.apply(ctx, true); err != nil {
		return err
	}
	listener, err := listen(gate)
	if err != nil {
		return err
	}
	defer listener.Close()
	go e.serve(ctx, listener)
	e.loop(ctx)
	return nil
}

func (e *enforcer) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { e.touch() },
		UpdateFunc: func(any, any) { e.touch() },
		DeleteFunc: func(any) { e.touch() },
	}
}

func (e *enforcer) touch() {
	select {
	case e.changed <- struct{}{}:
	default: // one is waiting to be seen; it will see this change too
	}
}

func (e *enforcer) loop(ctx context.Context) {
	ticker := time.NewTicker(refresh)
	defer ticker.Stop()
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
			if due == nil { // a stream of changes must not put off the first for ever
				due = time.After(debounce)
			}
		case <-due:
			due = nil
			e.report(e.apply(ctx, false))
		case <-ticker.C:
			e.report(e.apply(ctx, true))
		case asked := <-e.announcements:
			e.announced.add(asked.pod, asked.address)
			asked.done <- e.apply(ctx, false)
		}
	}
}

func (e *enforcer) report(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// apply brings the kernel to what the informers know now.
func (e *enforcer) apply(ctx context.Context, always bool) error {
	world, err := e.observe()
	if err != nil {
		return err
	}
	text := Render(Compile(world))
	if text == e.applied && !always {
		return nil
	}
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(text)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft refused the table: %w: %s", err, said)
	}
	e.applied = text
	return nil
}

func (e *enforcer) observe() (World, error) {
	policies, err := e.policies.List(labels.Everything())
	if err != nil {
		return World{}, err
	}
	pods, err := e.pods.List(labels.Everything())
	if err != nil {
		return World{}, err
	}
	namespaces, err := e.namespaces.List(labels.Everything())
	return World{policies, e.announced.place(pods), namespaces}, err
}
