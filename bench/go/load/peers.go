package main

import (
	"crypto/rand"

	"google.golang.org/protobuf/encoding/protowire"
)

// relayed is the method of the gRPC peers: `text_delta.content` of an `Event`.
var relayed = call{
	method:  "/bench.Relay/Stream",
	request: func(prompt string) []byte { return field(2, prompt) },
	texts:   []protowire.Number{7, 1},
}

// sent is `SendStreamingMessage` of A2A: `artifact_update.artifact.parts[].text` of a
// `StreamResponse`.
var sent = call{
	method:   "/lf.a2a.v1.A2AService/SendStreamingMessage",
	metadata: []string{"a2a-version", "1.0"},
	request: func(prompt string) []byte {
		const user = 1
		message := field(1, rand.Text())
		message = protowire.AppendVarint(protowire.AppendTag(message, 4, protowire.VarintType), user)
		return field(2, append(message, field(5, field(1, prompt))...))
	},
	texts: []protowire.Number{4, 3, 4, 1},
}
