package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// call is a server-streaming method of a gRPC service.
type call struct {
	method  string
	request func(prompt string) []byte

	// metadata are keys and values in turn.
	metadata []string

	// texts leads from a response to the texts of its tokens.
	texts []protowire.Number
}

// window is the flow control window of a stream, in bytes; of a connection, 16 times as much.
// Fixed windows keep the client from sending pings to estimate them.
const window = 4 << 20

// access is what a service demands of its callers: nothing by default.
var access struct {
	// ca is the path of the certificates to trust; empty: plaintext.
	ca string

	// key is sent with each call over TLS; empty: none.
	key string
}

func dial(address string) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if access.ca != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(access.ca, ""); err != nil {
			return nil, err
		}
	}
	return grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer(access.key)),
		grpc.WithNoProxy(),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(16*window),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)),
	)
}

// bearer is the key that each call sends; none if it is empty.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b != "" }

// open returns a reader of the method for each connection.
func (c call) open(address string) (reader, error) {
	connection, err := dial(address)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, prompt string, got func([]byte)) error {
		return c.read(ctx, connection, c.request(prompt), got)
	}, nil
}

func (c call) read(ctx context.Context, connection *grpc.ClientConn, request []byte, got func([]byte)) error {
	ctx = metadata.AppendToOutgoingContext(ctx, c.metadata...)
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, c.method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var message []byte
	for {
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := walk(message, c.texts, got); err != nil {
			return err
		}
	}
}

// raw passes messages on as bytes. The bytes of a received message are reused for the next.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, message any) error {
	buffer := message.(*[]byte)
	if size := data.Len(); cap(*buffer) < size {
		*buffer = make([]byte, size)
	} else {
		*buffer = (*buffer)[:size]
	}
	data.CopyTo(*buffer)
	return nil
}
