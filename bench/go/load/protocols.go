package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// reader reads one answer and calls got with the text of each token. The text is only valid
// during the call.
type reader func(ctx context.Context, prompt string, got func(text []byte)) error

// protocols opens a connection, by the name of the protocol.
var protocols = map[string]func(address string) (reader, error){
	"polos":     started.open,
	"elsewhere": openElsewhere,
	"relay":     relayed.open,
	"a2a":       sent.open,
	"sse":       streamed.open,
	"langgraph": graph.open,
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
