// Load reads answers from a service and prints as JSON what it measured.
//
//	load paced -protocol polos -address 127.0.0.1:50051 -runs 100
//	load starts -protocol relay -address 127.0.0.1:50051 -runs 300
//	load relay -protocol sse -address 127.0.0.1:8000 -runs 50 -tokens 1000
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"time"
)

// load is what the command line asks for.
type load struct {
	address           string
	reader            func(index int) reader
	runs              int
	rate              int
	tokens            int
	seconds           time.Duration
	service, provider processes
}

var scenarios = map[string]func(*load, context.Context) (any, error){
	"paced":  (*load).paced,
	"starts": (*load).starts,
	"relay":  (*load).relay,
	"replay": (*load).replay,
}

func main() {
	log.SetFlags(0)
	runtime.GOMAXPROCS(1) // one core is enough, and the others belong to what is measured
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 || scenarios[arguments[0]] == nil {
		return fmt.Errorf("usage: load paced|starts|relay|replay -address HOST:PORT ...; load paced -h lists the options")
	}
	var l load
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	protocol := flags.String("protocol", "polos", "what the service speaks: polos, elsewhere, relay, a2a, sse or langgraph")
	flags.StringVar(&l.address, "address", "", "where the service listens; several, with commas, are used in turn")
	connections := flags.Int("connections", 1, "gRPC connections to each address")
	flags.IntVar(&l.runs, "runs", 50, "runs at the same time")
	flags.IntVar(&l.rate, "rate", 50, "paced, starts: tokens per second of each run")
	flags.DurationVar(&l.seconds, "seconds", 4*time.Second, "paced, starts: the time that is measured, for example 4s")
	flags.IntVar(&l.tokens, "tokens", 1000, "relay, replay: tokens of each run")
	flags.StringVar(&access.ca, "ca", "", "PEM file with the certificates to trust; without it, gRPC services are called in plaintext")
	flags.StringVar(&access.key, "key", "", "API key that is sent with each call; needs -ca")
	flags.Var(&l.service, "service", "processes of the service, with commas; their CPU and disk use is measured with that of their children")
	flags.Var(&l.provider, "provider", "processes of the provider, as -service")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	var err error
	if l.reader, err = connect(*protocol, l.address, *connections); err != nil {
		return err
	}
	result, err := scenarios[arguments[0]](&l, context.Background())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
