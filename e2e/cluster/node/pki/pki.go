// Package pki makes the certificates of one embedded cluster, once, at `up`.
//
// They live as long as the cluster's state directory does, and that is deleted
// by `down`; so one year of validity is generous and there is no renewal.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

const validity = 365 * 24 * time.Hour

// leaf is one certificate: who it is for, and whether it serves.
type leaf struct {
	file, name, group string
	server            bool
	authority         string
}

// leaves of a cluster; node is the node's name.
func leaves(node string) []leaf {
	return []leaf{
		{file: "apiserver", name: "kube-apiserver", server: true, authority: "ca"},
		{file: "kubelet-server", name: node, server: true, authority: "ca"},
		{file: "apiserver-kubelet-client", name: "kube-apiserver-kubelet-client", group: "system:masters", authority: "ca"},
		{file: "admin", name: "folkmoot-admin", group: "system:masters", authority: "ca"},
		{file: "kube-controller-manager", name: "system:kube-controller-manager", authority: "ca"},
		{file: "kube-scheduler", name: "system:kube-scheduler", authority: "ca"},
		{file: "kubelet", name: "system:node:" + node, group: "system:nodes", authority: "ca"},
		{file: "kube-proxy", name: "system:kube-proxy", authority: "ca"},
		{file: "equipment", name: "folkmoot:test-equipment", group: "system:masters", authority: "ca"},
		{file: "front-proxy-client", name: "front-proxy-client", authority: "front-proxy-ca"},
	}
}

// Command is `pki --directory DIR --node NAME --address IP... --host NAME...`.
func Command() *cobra.Command {
	var directory, node string
	var addresses []net.IP
	var hosts []string
	command := &cobra.Command{
		Use:   "pki",
		Short: "make the certificates of one embedded cluster",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return write(directory, node, addresses, hosts)
		},
	}
	command.Flags().StringVar(&directory, "directory", "", "where the files go")
	command.Flags().StringVar(&node, "node", "", "name of the node")
	command.Flags().IPSliceVar(&addresses, "address", nil, "addresses the servers answer at")
	command.Flags().StringSliceVar(&hosts, "host", nil, "names the servers answer at")
	return command
}

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func write(directory, node string, addresses []net.IP, hosts []string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	authorities := map[string]authority{}
	for _, name := range []string{"ca", "front-proxy-ca"} {
		made, err := newAuthority(directory, name)
		if err != nil {
			return err
		}
		authorities[name] = made
	}
	for _, wanted := range leaves(node) {
		template := leafTemplate(wanted, addresses, hosts)
		if err := issue(directory, wanted.file, template, authorities[wanted.authority]); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(directory)
}

func newAuthority(directory, name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := template(name, "")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, err
	}
	return authority{certificate, key}, writePair(directory, name, der, key)
}

func leafTemplate(wanted leaf, addresses []net.IP, hosts []string) *x509.Certificate {
	made := template(wanted.name, wanted.group)
	made.KeyUsage = x509.KeyUsageDigitalSignature
	made.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if wanted.server {
		made.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		made.IPAddresses = addresses
		made.DNSNames = append([]string{wanted.name}, hosts...)
	}
	return made
}

func template(name, group string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(fmt.Sprintf("the system's randomness failed: %v", err))
	}
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity)}
}

func issue(directory, file string, template *x509.Certificate, by authority) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	if err != nil {
		return err
	}
	return writePair(directory, file, der, key)
}

// The service account key is RSA: RS256 is the one algorithm every reader of
// the JWKS is sure to know.
func writeServiceAccountKey(directory string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writeKey(directory, "service-account", key); err != nil {
		return err
	}
	return writePEM(filepath.Join(directory, "service-account.pub"), "PUBLIC KEY", public, 0o644)
}

func writePair(directory, name string, der []byte, key crypto.Signer) error {
	if err := writePEM(filepath.Join(directory, name+".crt"), "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	return writeKey(directory, name, key)
}

func writeKey(directory, name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(directory, name+".key"), "PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
