// Judges run other people's code over what Folkmoot wrote: exit code 0 and "ok", or 1 and a sentence.
//
//	judges log <dir> <vkey>                                  golang.org/x/mod: note, inclusion of every entry, consistency of every prefix
//	judges cosigned <checkpoint> <origin> <vkey>…            transparency-dev/formats: every key must have signed
//	judges proof <file> <entry> <origin> <vkey>…             transparency-dev/formats and merkle: a tlog-proof
//	judges witness <log vkey>                                transparency-dev/witness: serves add-checkpoint, prints its URL and vkeys
//	judges submit <url> <old> <checkpoint> <hash in hex>…    transparency-dev/witness: its client, asking a witness of ours
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	flog "github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	fproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	wclient "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	commands := map[string]struct {
		least int
		run   func([]string) error
	}{"log": {2, judgeLog}, "cosigned": {3, judgeCosigned}, "proof": {4, judgeProof}, "witness": {1, serveWitness}, "submit": {3, submit}}
	if len(os.Args) < 2 || commands[os.Args[1]].run == nil || len(os.Args)-2 < commands[os.Args[1]].least {
		fmt.Fprintln(os.Stderr, "usage: see the head of main.go")
		os.Exit(2)
	}
	if err := commands[os.Args[1]].run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

// tiles reads a static tlog-tiles directory as x/mod's tlog wants it: its paths have a height of 8 in front.
type tiles struct{ dir string }

func (tiles) Height() int                         { return 8 }
func (tiles) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (t tiles) ReadTiles(all []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range all {
		data, err := os.ReadFile(filepath.Join(t.dir, strings.Replace(tile.Path(), "tile/8/", "tile/", 1)))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func judgeLog(args []string) error {
	signed, err := os.ReadFile(filepath.Join(args[0], "checkpoint"))
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(args[1])
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	var point flog.Checkpoint
	if _, err := point.Unmarshal([]byte(opened.Text)); err != nil {
		return err
	}
	tree := tlog.Tree{N: int64(point.Size)}
	copy(tree.Hash[:], point.Hash)
	reader := tlog.TileHashReader(tree, tiles{args[0]}) // checks every tile that it reads against the root
	for i := int64(0); i < tree.N; i += 1 + tree.N/2000 {
		entry, err := entryAt(args[0], tree.N, i)
		if err != nil {
			return err
		}
		proved, err := tlog.ProveRecord(tree.N, i, reader)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := tlog.CheckRecord(proved, tree.N, tree.Hash, i, tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		old, err := tlog.TreeHash(i+1, reader)
		if err != nil {
			return err
		}
		extends, err := tlog.ProveTree(tree.N, i+1, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(extends, tree.N, tree.Hash, i+1, old); err != nil {
			return fmt.Errorf("prefix %d: %w", i+1, err)
		}
	}
	return nil
}

func entryAt(dir string, size, index int64) ([]byte, error) {
	tile := tlog.Tile{H: 8, L: -1, N: index / 256, W: int(min(256, size-index/256*256))}
	path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
	bundle, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		return nil, err
	}
	for skip := index % 256; ; skip-- {
		if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
			return nil, fmt.Errorf("%s is cut off", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(bundle))
		if skip == 0 {
			return bundle[2:end], nil
		}
		bundle = bundle[end:]
	}
}

// verifierOf picks formats' verifier by the type in a vkey.
func verifierOf(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	typed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(typed) == 0 {
		return nil, fmt.Errorf("%q is no vkey", vkey)
	}
	switch typed[0] {
	case 0x04:
		return fnote.NewVerifierForCosignatureV1(vkey)
	case 0x06:
		return fnote.NewMLDSAVerifier(vkey)
	}
	return fnote.NewVerifier(vkey)
}

func judgeCosigned(args []string) error {
	signed, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	_, err = opened(signed, args[1], args[2:])
	return err
}

func opened(signed []byte, origin string, vkeys []string) (*flog.Checkpoint, error) {
	var verifiers []note.Verifier
	for _, vkey := range vkeys {
		v, err := verifierOf(vkey)
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, v)
	}
	point, _, found, err := flog.ParseCheckpoint(signed, origin, verifiers[0], verifiers[1:]...)
	if err != nil {
		return nil, err
	}
	if len(found.Sigs) != len(vkeys) {
		return nil, fmt.Errorf("%d of %d keys signed", len(found.Sigs), len(vkeys))
	}
	return point, nil
}

func judgeProof(args []string) error {
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var read fproof.TLogProof
	if err := read.Unmarshal(data); err != nil {
		return err
	}
	if !bytes.Equal(read.Marshal(), data) {
		return fmt.Errorf("the proof comes back as other bytes")
	}
	point, err := opened(read.Checkpoint, args[2], args[3:])
	if err != nil {
		return err
	}
	var path [][]byte
	for _, hash := range read.Hashes {
		path = append(path, append([]byte{}, hash[:]...))
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entry)
	return proof.VerifyInclusion(rfc6962.DefaultHasher, read.Index, point.Size, leaf, path, point.Hash)
}

func serveWitness(args []string) error {
	log, err := fnote.NewVerifier(args[0])
	if err != nil {
		return err
	}
	secret, plain, err := note.GenerateKey(rand.Reader, "judge.example/w")
	if err != nil {
		return err
	}
	classic, err := fnote.NewSignerForCosignatureV1(secret)
	if err != nil {
		return err
	}
	vkey, err := fnote.VKeyToCosignatureV1(plain)
	if err != nil {
		return err
	}
	other, otherVkey, err := fnote.GenerateMLDSAKey("judge.example/w")
	if err != nil {
		return err
	}
	later, err := fnote.NewMLDSASigner(other)
	if err != nil {
		return err
	}
	known := func(_ context.Context, origin string) (note.Verifier, bool, error) {
		return log, origin == log.Name(), nil
	}
	w, err := witness.New(context.Background(), witness.Opts{Persistence: inmemory.New(), Signers: []note.Signer{classic, later}, VerifierForLog: known})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	fmt.Printf("http://%s\n%s\n%s\n", listener.Addr(), vkey, otherVkey)
	return http.Serve(listener, mux)
}

func submit(args []string) error {
	at, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	old, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	signed, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	var hashes [][]byte
	for _, text := range args[3:] {
		hash, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		hashes = append(hashes, hash)
	}
	lines, size, err := wclient.NewWitness(at, http.DefaultClient).Update(context.Background(), old, signed, hashes)
	if err != nil {
		return fmt.Errorf("size %d: %w", size, err)
	}
	fmt.Print(string(lines))
	return nil
}
