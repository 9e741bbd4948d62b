package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// posted is a POST that is answered with server-sent events. The data of an event is a JSON
// object, which has the token's text in `content` if it is one of the answer. An HTTP/1.1
// connection carries one answer at a time, so there are as many as answers.
type posted struct {
	path, media string
	body        func(prompt string) []byte
}

// streamed is `POST /stream` of the peers built with FastAPI: the prompt is the body.
var streamed = posted{
	path:  "/stream",
	media: "text/plain",
	body:  func(prompt string) []byte { return []byte(prompt) },
}

// graph is a run without a thread of LangGraph's server, whose graph writes `{"content": text}`
// to its stream of mode `custom`.
var graph = posted{
	path:  "/runs/stream",
	media: "application/json",
	body: func(prompt string) []byte {
		return fmt.Appendf(nil, `{"assistant_id":"relay","input":{"prompt":%q},"stream_mode":"custom"}`, prompt)
	},
}

func (p posted) open(address string) (reader, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1 << 16, DisableCompression: true}}
	url := "http://" + address + p.path
	return func(ctx context.Context, prompt string, got func([]byte)) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(p.body(prompt)))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", p.media)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers with %s", url, response.Status)
		}
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			if data, found := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); found {
				var event struct{ Content *string }
				if err := json.Unmarshal(data, &event); err != nil {
					return fmt.Errorf("event %.200q: %w", data, err)
				}
				if event.Content != nil {
					got([]byte(*event.Content))
				}
			}
		}
		return lines.Err()
	}, nil
}
