package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

type relayResult struct {
	cost
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// relay reads answers as fast as they come, all runs at once.
func (l *load) relay(ctx context.Context) (any, error) {
	if err := l.answers(ctx, 1); err != nil { // the connections are made, the code is warm
		return nil, err
	}
	meter, err := startMeter(l.service, l.provider)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := l.answers(ctx, l.tokens); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	used, err := meter.stop()
	if err != nil {
		return nil, err
	}
	passed := l.runs * l.tokens
	return relayResult{used.per(passed), float64(passed) / took.Seconds()}, nil
}

// answers reads an unpaced answer for each run; each has to be complete.
func (l *load) answers(ctx context.Context, tokens int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var ended sync.WaitGroup
	for index := range l.runs {
		ended.Go(func() {
			count := 0
			err := l.reader(index)(ctx, unpaced(tokens), func([]byte) { count++ })
			if err == nil && count != tokens {
				err = fmt.Errorf("%d of %d tokens arrived", count, tokens)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	ended.Wait()
	return context.Cause(ctx)
}

// unpaced returns the prompt of an answer that comes as fast as it is read.
func unpaced(tokens int) string { return fmt.Sprintf("tokens=%d rate=0 hold=", tokens) }
