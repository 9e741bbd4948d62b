package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// reader reads one answer and calls got with the text of each token. The text is only valid
// during the call.
type reader func(ctx context.Context, prompt string, got func(text []byte)) error

// protocols opens a connection, by the name of the protocol.
var protocols = map[string]func(address string) (reader, error){
	"polos": polos.open,
	"relay": relayed.open,
	"sse":   openSSE,
}

// polos is `StreamRun`: `events[].text_delta.content` of a `StreamRunResponse`.
var polos = call{
	method:  "/polos.v1.RunService/StreamRun",
	request: func(prompt string) []byte { return append(field(1, "relay"), field(2, prompt)...) },
	texts:   []protowire.Number{1, 7, 1},
}

// relayed is the method of the gRPC peers: `text_delta.content` of an `Event`.
var relayed = call{
	method:  "/bench.Relay/Stream",
	request: func(prompt string) []byte { return field(2, prompt) },
	texts:   []protowire.Number{7, 1},
}

// connect opens so many connections to each of the addresses, which are separated by commas.
// The reader that it returns takes them in turn.
func connect(protocol, addresses string, connections int) (func(index int) reader, error) {
	open := protocols[protocol]
	if open == nil {
		names := slices.Sorted(maps.Keys(protocols))
		return nil, fmt.Errorf("protocol %q is not one of %s", protocol, strings.Join(names, ", "))
	}
	var readers []reader
	for range connections {
		for address := range strings.SplitSeq(addresses, ",") {
			one, err := open(address)
			if err != nil {
				return nil, err
			}
			readers = append(readers, one)
		}
	}
	return func(index int) reader { return readers[index%len(readers)] }, nil
}
