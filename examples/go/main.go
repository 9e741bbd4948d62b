// Starts a run and prints its output: go run . AGENT INPUT
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	polos "example.com/polos/gen/polos/v1"
)

const (
	patience = 60 * time.Second // of consecutive failures after which we give up
	silence  = 45 * time.Second // without a response after which a stream is dead: 3 heartbeats
	deadline = 30 * time.Second // for a unary call; a stream has no deadline
)

// local matches addresses on this machine.
var local = regexp.MustCompile(`^(unix:|(localhost|127(\.\d+){3}|\[::1\]):)`)

// refusal returns why the service refused a call; empty if no handler responded.
func refusal(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "polos.v1" {
			return info.Reason
		}
	}
	return ""
}

// isTransient returns whether the same call may succeed if it is retried.
func isTransient(err error) bool {
	if reason := refusal(err); reason != "" {
		return reason == "DRAINING" || reason == "STORE_UNAVAILABLE"
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
		return true
	}
	return false
}

// backoff waits longer after each failure.
type backoff struct {
	since time.Time
	delay time.Duration
}

func (b *backoff) reset() { *b = backoff{} }

// wait returns the error if failures persist, or if the same call would fail again.
func (b *backoff) wait(err error) error {
	if b.since.IsZero() {
		b.since, b.delay = time.Now(), 100*time.Millisecond
	}
	if !isTransient(err) || time.Since(b.since) > patience {
		return err
	}
	time.Sleep(time.Duration(float64(b.delay) * (0.5 + rand.Float64())))
	b.delay = min(2*b.delay, 2*time.Second)
	return nil
}

// start starts a run and returns its id once the run is stored.
func start(runs polos.RunServiceClient, agent, input string) (string, error) {
	// With a request id, retrying after a lost response does not start a second run.
	request := &polos.CreateRunRequest{
		AgentId: agent, Input: input, Streaming: true, RequestId: uuid.NewString(),
	}
	for tries := (backoff{}); ; {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		response, err := runs.CreateRun(ctx, request)
		cancel()
		if err == nil {
			return response.Run.RunId, nil
		}
		if err := tries.wait(err); err != nil {
			return "", err
		}
	}
}

// follow shows the events of a run, each once and in order, and returns the one that ends it.
func follow(runs polos.RunServiceClient, runID string, show func(*polos.Event)) (*polos.Event, error) {
	var cursor int64
	tries := &backoff{}
	for {
		last, err := read(runs, runID, &cursor, tries, show)
		if last != nil {
			return last, nil
		}
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("run %s stopped after event %d, before its end", runID, cursor)
		}
		if err := tries.wait(err); err != nil {
			return nil, err
		}
	}
}

// read reads a run from the cursor on, over one connection.
func read(
	runs polos.RunServiceClient, runID string, cursor *int64, tries *backoff, show func(*polos.Event),
) (*polos.Event, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := time.AfterFunc(silence, cancel)
	defer timer.Stop()
	stream, err := runs.StreamWorkflow(
		ctx, &polos.StreamWorkflowRequest{WorkflowRunId: runID, AfterSequence: *cursor},
	)
	for err == nil {
		var response *polos.StreamWorkflowResponse
		if response, err = stream.Recv(); err != nil {
			break
		}
		timer.Reset(silence) // a response without events is a heartbeat
		tries.reset()
		for _, event := range response.Events {
			*cursor = event.Sequence
			show(event)
			if event.Terminal {
				return event, nil
			}
		}
	}
	return nil, err
}

// show prints an event; it skips events of unknown types.
func show(event *polos.Event) {
	switch it := event.Payload.(type) {
	case *polos.Event_TextDelta:
		fmt.Print(it.TextDelta.Content)
	case *polos.Event_StepRetry:
		fmt.Printf("\n[%s starts over: %s]\n", it.StepRetry.StepKey, it.StepRetry.Message)
	case *polos.Event_StepFinish:
		if it.StepFinish.ToolCall != nil {
			fmt.Printf("[%s]\n", it.StepFinish.StepKey)
		}
	case *polos.Event_AgentFinish:
		fmt.Printf("\n%d tokens\n", it.AgentFinish.GetUsage().GetTotalTokens())
	case *polos.Event_Error:
		fmt.Fprintf(os.Stderr, "\n%s: %s\n", it.Error.Reason, it.Error.Message)
	case *polos.Event_RunCancelled:
		fmt.Fprintln(os.Stderr, "\ncancelled")
	}
}

// apiKey is sent with each call.
type apiKey string

func (key apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if key == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

func (apiKey) RequireTransportSecurity() bool { return false } // transport checks it

// transport returns TLS or plaintext, as POLOS_TLS says: 1, 0, or a PEM file with the CA to trust.
func transport(address string, key apiKey) (credentials.TransportCredentials, error) {
	switch tls := os.Getenv("POLOS_TLS"); tls {
	case "1", "true":
		return credentials.NewTLS(nil), nil
	case "", "0", "false":
		if key != "" && !local.MatchString(address) {
			return nil, fmt.Errorf("the API key would travel to %s in plaintext; set POLOS_TLS=1", address)
		}
		return insecure.NewCredentials(), nil
	default:
		return credentials.NewClientTLSFromFile(tls, "")
	}
}

// connect returns a connection that is made when it is first used.
func connect() (*grpc.ClientConn, error) {
	address := cmp.Or(os.Getenv("POLOS_ADDRESS"), "127.0.0.1:50051")
	key := apiKey(os.Getenv("POLOS_API_KEY"))
	secret, err := transport(address, key)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(
		address,
		grpc.WithTransportCredentials(secret),
		grpc.WithPerRPCCredentials(key),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    30 * time.Second, // at least 10 s, or the service closes the connection
			Timeout: 10 * time.Second,
		}),
	)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run . AGENT INPUT")
		os.Exit(2)
	}
	connection, err := connect()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer connection.Close()
	runs := polos.NewRunServiceClient(connection)
	runID, err := start(runs, os.Args[1], os.Args[2])
	var last *polos.Event
	if err == nil {
		last, err = follow(runs, runID, show)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", cmp.Or(refusal(err), status.Code(err).String()), status.Convert(err).Message())
		os.Exit(2)
	}
	if last.GetAgentFinish() == nil {
		os.Exit(1)
	}
}
