// Command node is every component of the embedded test cluster in one binary.
//
// Linking the components separately would cost 700 MB and seven links; they
// share most of their code. The name it is called by (a symbolic link), or else
// the first argument, says which component runs. `e2e/cluster/up` makes the
// links. Nothing here is part of the product.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	_ "time/tzdata" // CronJob time zones

	"folkmoot.dev/e2e/cluster/node/forward"
	"folkmoot.dev/e2e/cluster/node/netpol"
	"folkmoot.dev/e2e/cluster/node/pki"
	"folkmoot.dev/e2e/cluster/node/volumes"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// component builds a cobra command when asked, never before: constructing the
// kubelet's registers metrics that collide with the API server's.
type component func() *cobra.Command

var components = map[string]component{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kube-proxy":              proxy.NewProxyCommand,
	"pki":                     pki.Command,
	"forward":                 forward.Command,
	"netpol":                  netpol.Command,
	"volumes":                 volumes.Command,
}

func main() {
	name := filepath.Base(os.Args[0])
	if !known(name) && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	os.Exit(run(name))
}

func known(name string) bool {
	_, ok := components[name]
	return ok || name == "etcd" || name == "kubectl"
}

func run(name string) int {
	switch {
	case name == "etcd":
		etcdmain.Main(os.Args)
		return 0
	case name == "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
		return 0
	case components[name] != nil:
		return cli.Run(components[name]())
	}
	names := []string{"etcd", "kubectl"}
	for known := range components {
		names = append(names, known)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "expected one of %s, found %q\n", strings.Join(names, ", "), name)
	return 2
}
