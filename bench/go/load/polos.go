package main

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

const service = "/polos.v1.RunService/"

// started is `StreamRun`: `events[].text_delta.content` of a `StreamRunResponse`.
var started = call{
	method:  service + "StreamRun",
	request: func(prompt string) []byte { return append(field(1, "relay"), field(2, prompt)...) },
	texts:   []protowire.Number{1, 7, 1},
}

// attached is `StreamWorkflow`. It is given the id of the run instead of a prompt.
var attached = call{
	method:  service + "StreamWorkflow",
	request: func(run string) []byte { return field(1, run) },
	texts:   started.texts,
}

// openElsewhere returns a reader that starts runs at one replica and reads them at another. The
// address is those of both, with a slash between.
func openElsewhere(address string) (reader, error) {
	here, there, found := strings.Cut(address, "/")
	if !found {
		return nil, errors.New("the address of protocol elsewhere is HOST:PORT/HOST:PORT")
	}
	starts, err := dial(here)
	if err != nil {
		return nil, err
	}
	read, err := attached.open(there)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, prompt string, got func([]byte)) error {
		run, err := create(ctx, starts, prompt)
		if err != nil {
			return err
		}
		return read(ctx, run, got)
	}, nil
}

// create starts a run and returns its id: `run.run_id` of a `CreateRunResponse`.
func create(ctx context.Context, connection *grpc.ClientConn, prompt string) (string, error) {
	const streaming = 6
	request := protowire.AppendTag(started.request(prompt), streaming, protowire.VarintType)
	request = protowire.AppendVarint(request, 1)
	var response []byte
	if err := connection.Invoke(ctx, service+"CreateRun", &request, &response); err != nil {
		return "", err
	}
	return first(response, 1, 1)
}

// first returns the first value that a path of field numbers leads to.
func first(message []byte, path ...protowire.Number) (string, error) {
	found := ""
	err := walk(message, path, func(value []byte) {
		if found == "" {
			found = string(value)
		}
	})
	if err == nil && found == "" {
		err = errors.New("a response contains no id of a run")
	}
	return found, err
}
