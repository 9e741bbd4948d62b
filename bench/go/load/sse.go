package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// openSSE returns a reader of `POST /stream`: server-sent events whose data is a JSON object
// with the token's text in `content`. An HTTP/1.1 connection carries one answer at a time, so
// there are as many as answers.
func openSSE(address string) (reader, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1 << 16, DisableCompression: true}}
	url := "http://" + address + "/stream"
	return func(ctx context.Context, prompt string, got func([]byte)) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(prompt))
		if err != nil {
			return err
		}
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
