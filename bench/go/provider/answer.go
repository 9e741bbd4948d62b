package main

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"time"
)

const (
	head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" +
		"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
	before = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,` +
		`"model":"mock","service_tier":"default","system_fingerprint":"fp_bench","choices":[` +
		`{"index":0,"delta":{"content":"`
	after = `"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"
	chunk = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,` +
		`"model":"mock","choices":[`
	finish = chunk + `{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usage  = chunk + `],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}` + "\n\n"
	done   = "data: [DONE]\n\n"

	// piece is the number of tokens per write when nothing is paced.
	piece = 256
)

var unpaced = bytes.Repeat(token(nil, "tok "), piece)

// token appends the chunk of an HTTP body that carries one token.
func token(buffer []byte, text string) []byte {
	return appendChunk(buffer, before, text, after)
}

func appendChunk(buffer []byte, parts ...string) []byte {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	buffer = strconv.AppendInt(buffer, int64(size), 16)
	buffer = append(buffer, "\r\n"...)
	for _, part := range parts {
		buffer = append(buffer, part...)
	}
	return append(buffer, "\r\n"...)
}

// ending returns the finish reason, the usage and the end of an answer's body.
func ending(tokens int) []byte {
	return append(appendChunk(nil, finish, fmt.Sprintf(usage, tokens, tokens+7), done), "0\r\n\r\n"...)
}

// answer writes a whole answer.
func answer(connection net.Conn, tokens, rate int) error {
	if _, err := connection.Write([]byte(head)); err != nil {
		return err
	}
	write := pour
	if rate > 0 {
		write = func(connection net.Conn, tokens int) error { return pace(connection, tokens, rate) }
	}
	if err := write(connection, tokens); err != nil {
		return err
	}
	_, err := connection.Write(ending(tokens))
	return err
}

// pour writes tokens as fast as the connection takes them.
func pour(connection net.Conn, tokens int) error {
	for left := tokens; left > 0; left -= piece {
		data := unpaced[:len(unpaced)/piece*min(left, piece)]
		if _, err := connection.Write(data); err != nil {
			return err
		}
	}
	return nil
}

// pace writes tokens at a rate per second, each with the time at which it is sent.
func pace(connection net.Conn, tokens, rate int) error {
	clock, err := startClock(rate)
	if err != nil {
		return err
	}
	defer clock.Close()
	var buffer []byte
	for left := tokens; left > 0; {
		ticks, err := clock.wait()
		if err != nil {
			return err
		}
		for ; ticks > 0 && left > 0; ticks, left = ticks-1, left-1 {
			stamp := strconv.FormatInt(time.Now().UnixNano(), 10)
			buffer = token(buffer[:0], stamp+" ")
			if _, err := connection.Write(buffer); err != nil {
				return err
			}
		}
	}
	return nil
}
