// Package forward makes the API server, which listens in a network namespace of
// its own, reachable at an address of the host's loopback.
package forward

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Command is `forward --listen HOST:PORT --namespace PATH --to HOST:PORT`.
func Command() *cobra.Command {
	var listen, namespace, to string
	command := &cobra.Command{
		Use:   "forward",
		Short: "listen here, connect inside a network namespace",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return serve(listen, namespace, to)
		},
	}
	command.Flags().StringVar(&listen, "listen", "", "address to listen at, in the caller's namespace")
	command.Flags().StringVar(&namespace, "namespace", "", "file of the network namespace to connect in")
	command.Flags().StringVar(&to, "to", "", "IP address and port to connect to")
	return command
}

type answer struct {
	connection net.Conn
	err        error
}

func serve(listen, namespace, to string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	requests := make(chan chan answer)
	failed := make(chan error, 1)
	go dialInside(namespace, to, requests, failed)
	go accept(listener, requests, failed)
	return <-failed
}

// dialInside owns one thread, moves it into the namespace and dials from it for
// everyone: a socket belongs to the namespace of the thread that made it.
func dialInside(namespace, to string, requests <-chan chan answer, failed chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread must not be reused outside
	file, err := os.Open(namespace)
	if err != nil {
		failed <- err
		return
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		failed <- fmt.Errorf("enter %s: %w", namespace, err)
		return
	}
	for request := range requests {
		connection, err := net.DialTimeout("tcp", to, 5*time.Second)
		request <- answer{connection, err}
	}
}

func accept(listener net.Listener, requests chan<- chan answer, failed chan<- error) {
	for {
		outside, err := listener.Accept()
		if err != nil {
			failed <- err
			return
		}
		reply := make(chan answer, 1)
		requests <- reply
		inside := <-reply
		if inside.err != nil {
			fmt.Fprintln(os.Stderr, inside.err)
			outside.Close()
			continue
		}
		go join(outside, inside.connection)
	}
}

// join copies both ways; the end of one direction closes only that direction.
func join(left, right net.Conn) {
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{left, right}, {right, left}} {
		both.Add(1)
		go func() {
			defer both.Done()
			_, _ = io.Copy(pair[0], pair[1]) // a broken connection is the peer's news, not ours
			if half, ok := pair[0].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
		}()
	}
	both.Wait()
	left.Close()
	right.Close()
}
