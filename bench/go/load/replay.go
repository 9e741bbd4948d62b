package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// repeats is how often a finished run is read; the fastest counts.
const repeats = 3

type replayResult struct {
	Events          int     `json:"events"`
	EventsPerSecond float64 `json:"events_per_second"`
}

// replay reads the log of a finished run of Polos.
func (l *load) replay(ctx context.Context) (any, error) {
	address, _, _ := strings.Cut(l.address, ",")
	connection, err := dial(address)
	if err != nil {
		return nil, err
	}
	run, err := create(ctx, connection, unpaced(l.tokens))
	if err != nil {
		return nil, err
	}
	result := replayResult{}
	log := attached
	log.texts = []protowire.Number{1}
	for range 1 + repeats { // the first ends with the run
		events := 0
		begun := time.Now()
		if err := log.read(ctx, connection, log.request(run), func([]byte) { events++ }); err != nil {
			return nil, err
		}
		if events <= l.tokens {
			return nil, fmt.Errorf("a log of %d tokens has %d events", l.tokens, events)
		}
		rate := float64(events) / time.Since(begun).Seconds()
		result = replayResult{events, max(result.EventsPerSecond, rate)}
	}
	return result, nil
}
