package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"
)

// Enough adders that a batch is always full: each waits for its entry's index, which Tessera gives once tiles and
// tree state are synced. Its index is durable then, as our receipt is.
const adders = 2048

func appendTessera(directory string, entries, batch int) (Result, error) {
	klog.LogToStderr(false)
	ctx := context.Background()
	secret, _, err := note.GenerateKey(rand.Reader, "bench.example/tessera")
	if err != nil {
		return Result{}, err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return Result{}, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: directory})
	if err != nil {
		return Result{}, err
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithCheckpointInterval(time.Second).
		WithBatching(uint(batch), 50*time.Millisecond).
		WithPushback(2 * adders)
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return Result{}, err
	}
	latencies := make([]time.Duration, entries)
	errs := make(chan error, adders)
	var next atomic.Int64
	var group sync.WaitGroup
	begin := time.Now()
	for range adders {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				number := int(next.Add(1)) - 1
				if number >= entries {
					return
				}
				data := make([]byte, entrySize)
				copy(data, fmt.Sprintf("entry %d of a round", number))
				sent := time.Now()
				if _, err := appender.Add(ctx, tessera.NewEntry(data))(); err != nil {
					errs <- fmt.Errorf("entry %d: %w", number, err)
					return
				}
				latencies[number] = time.Since(sent)
			}
		}()
	}
	group.Wait()
	took := time.Since(begin)
	select {
	case err := <-errs:
		return Result{}, err
	default:
	}
	if err := shutdown(ctx); err != nil {
		return Result{}, err
	}
	return summary(entries, entries, took, latencies), nil
}
