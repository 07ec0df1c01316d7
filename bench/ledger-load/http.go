package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var padding = bytes.Repeat([]byte("x"), 64)

// appendHTTP sends entries over kept connections, one request at a time on each, and waits for every receipt.
func appendHTTP(socket string, connections, entries, batch int, run string) (Result, error) {
	requests := entries / batch
	latencies := make([]time.Duration, requests)
	errs := make(chan error, connections)
	var next atomic.Int64
	var group sync.WaitGroup
	begin := time.Now()
	for range connections {
		group.Add(1)
		go func() {
			defer group.Done()
			errs <- send(socket, batch, run, &next, latencies)
		}()
	}
	group.Wait()
	took := time.Since(begin)
	for range connections {
		if err := <-errs; err != nil {
			return Result{}, err
		}
	}
	return summary(requests*batch, requests, took, latencies), nil
}

func send(socket string, batch int, run string, next *atomic.Int64, latencies []time.Duration) error {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 64<<10)
	var body, request []byte
	for {
		number := int(next.Add(1)) - 1
		if number >= len(latencies) {
			return nil
		}
		body = bodyOf(body[:0], number*batch, batch, run)
		request = append(request[:0], "POST /v1/entries HTTP/1.1\r\nHost: ledger\r\nContent-Type: application/json\r\nContent-Length: "...)
		request = strconv.AppendInt(request, int64(len(body)), 10)
		request = append(append(request, "\r\n\r\n"...), body...)
		sent := time.Now()
		if _, err := connection.Write(request); err != nil {
			return err
		}
		if err := readAnswer(reader); err != nil {
			return fmt.Errorf("request %d: %w", number, err)
		}
		latencies[number] = time.Since(sent)
	}
}

// bodyOf makes a request as the ledger's own client would: the fields that it sets, and metadata of a usual length.
func bodyOf(body []byte, first, count int, run string) []byte {
	if count > 1 {
		body = append(body, `{"entries":[`...)
	}
	for i := range count {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"id":"bench-`...)
		body = append(append(body, run...), '-')
		body = strconv.AppendInt(body, int64(first+i), 10)
		body = append(body, `","type":"task.sent","time":"2026-01-31T12:00:00.000000Z","actor":{"kind":"service","id":"conductor","seed":"","commitment":""},"session":"s-0001","config":"","data":{"gen_ai.operation.name":"invoke_agent","round":3,"note":"`...)
		body = append(append(body, padding...), `"},"payload":null,"traceparent":""}`...)
	}
	if count > 1 {
		body = append(body, "]}"...)
	}
	return body
}

func readAnswer(reader *bufio.Reader) error {
	status, err := reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		rest, _ := reader.Peek(reader.Buffered())
		return fmt.Errorf("answered %q %q", status, rest)
	}
	length := -1
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, reader, int64(length))
	return err
}
