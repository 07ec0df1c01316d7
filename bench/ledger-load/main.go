// Command ledger-load is the other side of bench/ledger: it appends to Tessera's POSIX storage in process, and it sends
// entries to a ledger over a Unix socket. A client written in Python would measure itself.
//
//	ledger-load tessera -directory D -entries N -batch B
//	ledger-load http -socket S -connections C -batch B -entries N -run R
//
// Each prints one line of JSON. Entries of Tessera have 500 bytes, as the ledger's have on its disk.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"time"
)

const entrySize = 500

// Result is what a round found. Latencies are of one entry (Tessera) or one request (HTTP), in milliseconds.
type Result struct {
	Entries  int     `json:"entries"`
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("expected: ledger-load tessera|http …"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	entries := flags.Int("entries", 100_000, "entries to append")
	batch := flags.Int("batch", 256, "entries of a batch, or of one request")
	directory := flags.String("directory", "", "where Tessera keeps its log")
	socket := flags.String("socket", "", "the ledger's Unix socket")
	connections := flags.Int("connections", 64, "connections, each with one request at a time")
	run := flags.String("run", "0", "part of each entry's id, so that rounds do not repeat each other")
	fail(flags.Parse(os.Args[2:]))
	var result Result
	var err error
	switch os.Args[1] {
	case "tessera":
		result, err = appendTessera(*directory, *entries, *batch)
	case "http":
		result, err = appendHTTP(*socket, *connections, *entries, *batch, *run)
	default:
		err = fmt.Errorf("unknown command %q; expected tessera or http", os.Args[1])
	}
	fail(err)
	fail(json.NewEncoder(os.Stdout).Encode(result))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "ledger-load:", err)
		os.Exit(1)
	}
}

func summary(entries, requests int, took time.Duration, latencies []time.Duration) Result {
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	at := func(share float64) float64 {
		return float64(latencies[min(len(latencies)-1, int(share*float64(len(latencies))))].Microseconds()) / 1000
	}
	return Result{entries, requests, took.Seconds(), at(0.50), at(0.99)}
}
