// Package volumes keeps a pool of local PersistentVolumes.
//
// Kubernetes has no provisioner for `local` volumes and leaves used ones
// Released for ever; repeated tests would run out. So: the pool is made at
// start, and a Released volume is deleted, its directory replaced by an empty
// one, and the volume made again. hostPath volumes would need none of this, but
// the kubelet does not apply fsGroup to them.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// poolLabel marks our volumes; others, made by a test, are left alone.
const poolLabel = "folkmoot.dev/pool"

// interval between two looks at the pool.
const interval = 500 * time.Millisecond

type pool struct {
	client                       kubernetes.Interface
	directory, node, class, size string
	count                        int
}

// Command is `volumes --kubeconfig FILE --directory DIR --node NAME --class NAME`.
func Command() *cobra.Command {
	var kubeconfig string
	var settings pool
	command := &cobra.Command{
		Use:   "volumes",
		Short: "keep a pool of local PersistentVolumes",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			if settings.client, err = kubernetes.NewForConfig(config); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			wait.UntilWithContext(ctx, settings.tend, interval)
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "", "who to talk to")
	flags.StringVar(&settings.directory, "directory", "", "where the volumes' directories are")
	flags.StringVar(&settings.node, "node", "", "the node that has them")
	flags.StringVar(&settings.class, "class", "folkmoot-local", "their storage class")
	flags.StringVar(&settings.size, "size", "10Gi", "capacity each claims to have")
	flags.IntVar(&settings.count, "count", 32, "how many")
	return command
}

// tend looks at every volume of the pool once and repairs what is not as wished.
func (p pool) tend(ctx context.Context) {
	listed, err := p.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{LabelSelector: poolLabel})
	if err != nil {
		report(ctx, "list", err)
		return
	}
	present := map[string]corev1.PersistentVolumePhase{}
	for _, volume := range listed.Items {
		present[volume.Name] = volume.Status.Phase
	}
	for number := range p.count {
		name := fmt.Sprintf("folkmoot-local-%02d", number)
		phase, exists := present[name]
		switch {
		case !exists:
			err = p.create(ctx, name)
		case phase == corev1.VolumeReleased || phase == corev1.VolumeFailed:
			err = p.remove(ctx, name)
		default:
			continue
		}
		report(ctx, name, err)
	}
}

// create makes an empty directory and its volume. The old directory is moved
// away first: a slow deletion must not hold up the next user.
func (p pool) create(ctx context.Context, name string) error {
	path := filepath.Join(p.directory, name)
	discarded := filepath.Join(p.directory, "."+name+".discarded")
	if err := os.RemoveAll(discarded); err != nil {
		return err
	}
	if err := os.Rename(path, discarded); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // MkdirAll is subject to the umask
		return err
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, p.volume(name, path), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return os.RemoveAll(discarded)
}

func (p pool) volume(name, path string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{poolLabel: "local"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(p.size)},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			StorageClassName:              p.class,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
				}}}},
			}},
		},
	}
}

// remove deletes a used volume; the next look finds it missing and makes it anew.
func (p pool) remove(ctx context.Context, name string) error {
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func report(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	}
}
