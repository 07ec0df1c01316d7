package netpol

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// acquaintance is how long an announced pod may take to reach the informer.
const acquaintance = 5 * time.Second

// announcement is the gate's news of a pod's address, before anybody else knows.
type announcement struct {
	pod     types.NamespacedName
	address string
	done    chan error
}

// placements are the addresses that the gate announced, by pod. They go ahead of
// what the API server says, which the kubelet tells up to a second later.
type placements map[types.NamespacedName]string

// add makes the pod the one owner of the address: whoever had it is gone, even
// if its object is still there.
func (p placements) add(pod types.NamespacedName, address string) {
	for owner, owned := range p {
		if owned == address {
			delete(p, owner)
		}
	}
	p[pod] = address
}

// place gives pods the addresses that were announced, and forgets pods that are gone.
func (p placements) place(pods []*corev1.Pod) []*corev1.Pod {
	present := map[types.NamespacedName]bool{}
	owners := map[string]types.NamespacedName{}
	for pod, address := range p {
		owners[address] = pod
	}
	placed := make([]*corev1.Pod, 0, len(pods))
	for _, pod := range pods {
		name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
		present[name] = true
		address, announced := p[name]
		owner, owned := owners[pod.Status.PodIP]
		switch {
		case announced && address != pod.Status.PodIP:
			pod = pod.DeepCopy() // the informer's objects are not ours to change
			pod.Status.PodIP = address
		case !announced && owned && owner != name:
			continue
		}
		placed = append(placed, pod)
	}
	for pod := range p {
		if !present[pod] {
			delete(p, pod)
		}
	}
	return placed
}

func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return net.Listen("unix", socket)
}

func (e *enforcer) serve(ctx context.Context, listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return // closed: the program ends
		}
		go func() {
			defer connection.Close()
			answer := "ok"
			if err := e.admit(ctx, connection); err != nil {
				answer = err.Error()
			}
			_, _ = fmt.Fprint(connection, answer) // a gate that went away will ask again
		}()
	}
}

// admit answers only when the pod is known and its rules are in the kernel.
func (e *enforcer) admit(ctx context.Context, connection net.Conn) error {
	var asked struct{ Namespace, Name, IP string }
	if err := json.NewDecoder(connection).Decode(&asked); err != nil {
		return err
	}
	deadline := time.Now().Add(acquaintance)
	for {
		if _, err := e.pods.Pods(asked.Namespace).Get(asked.Name); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pod %s/%s is not known to the API server", asked.Namespace, asked.Name)
		}
		time.Sleep(10 * time.Millisecond)
	}
	done := make(chan error, 1)
	pod := types.NamespacedName{Namespace: asked.Namespace, Name: asked.Name}
	select {
	case e.announcements <- announcement{pod, asked.IP, done}:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}
