// What a benchmark of the gateway must not wait for itself: an engine that answers at once, and a client that asks as
// fast as it can.
//
//	gateway_load engine PORT
//	gateway_load load URL CONNECTIONS REQUESTS BODY-FILE
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const verdict = `{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"\\boxed{True}"}}],` +
	`"usage":{"prompt_tokens":100,"completion_tokens":5}}`

func engine(port string) error {
	http.HandleFunc("/", func(out http.ResponseWriter, in *http.Request) {
		io.Copy(io.Discard, in.Body)
		out.Header().Set("Content-Type", "application/json")
		io.WriteString(out, verdict)
	})
	return http.ListenAndServe("127.0.0.1:"+port, nil)
}

func load(url string, connections, requests int, body []byte) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	took := make([]time.Duration, requests)
	var next, failed atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range connections {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := next.Add(1) - 1; i < int64(requests); i = next.Add(1) - 1 {
				asked := time.Now()
				reply, err := client.Post(url, "application/json", bytes.NewReader(body))
				if err == nil {
					io.Copy(io.Discard, reply.Body)
					reply.Body.Close()
				}
				if err != nil || reply.StatusCode != 200 {
					failed.Add(1)
				}
				took[i] = time.Since(asked)
			}
		}()
	}
	all.Wait()
	seconds := time.Since(began).Seconds()
	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"per_second": float64(requests) / seconds,
		"p50_ms":     took[requests/2].Seconds() * 1000,
		"p99_ms":     took[requests*99/100].Seconds() * 1000,
		"failed":     failed.Load(),
	})
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "engine":
		return engine(arguments[1])
	case len(arguments) == 5 && arguments[0] == "load":
		connections, err := strconv.Atoi(arguments[2])
		if err != nil {
			return err
		}
		requests, err := strconv.Atoi(arguments[3])
		if err != nil {
			return err
		}
		body, err := os.ReadFile(arguments[4])
		if err != nil {
			return err
		}
		return load(arguments[1], connections, requests, body)
	}
	return fmt.Errorf("usage: gateway_load engine PORT | load URL CONNECTIONS REQUESTS BODY-FILE")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
