package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// warmUp is the time over which the runs of `paced` start.
	warmUp = 1500 * time.Millisecond

	// settling is the time between the last start and the beginning of the measurement.
	settling = 500 * time.Millisecond

	// grace is the time for which tokens may still arrive after the measurement.
	grace = 2 * time.Second

	// waiting is the time within which runs that start at once must have begun.
	waiting = 10 * time.Second
)

type pacedResult struct {
	delivery
	cost
	Begun    int     `json:"begun"`
	FirstP50 float64 `json:"first_token_p50_ms,omitempty"`
	FirstP99 float64 `json:"first_token_p99_ms,omitempty"`
}

// paced starts runs one by one and measures the tokens that are sent once all run.
func (l *load) paced(ctx context.Context) (any, error) {
	step := warmUp / time.Duration(l.runs)
	streams := l.start(ctx, warmUp+settling+l.seconds+grace, step)
	time.Sleep(warmUp + settling)
	meter, err := startMeter(l.service, l.provider)
	if err != nil {
		return nil, err
	}
	first := time.Now()
	time.Sleep(l.seconds)
	used, err := meter.stop()
	last := time.Now()
	if err != nil {
		return nil, err
	}
	time.Sleep(grace)
	all, err := streams.stop()
	if err != nil {
		return nil, err
	}
	result := pacedResult{}
	var delays []int64
	arrived := 0
	for _, one := range all {
		delays = delaysIn(delays, one.samples, first.UnixNano(), last.UnixNano())
		arrived += arrivedIn(one.samples, first.UnixNano(), last.UnixNano())
		result.Begun += min(len(one.samples), 1)
	}
	result.delivery = deliveryOf(delays, l.due(last.Sub(first)))
	result.cost = used.per(arrived)
	return result, nil
}

// starts starts all runs at once and measures each from its first token on. What is due to a
// run that never begins counts as not delivered. Costs are those of the whole time.
func (l *load) starts(ctx context.Context) (any, error) {
	meter, err := startMeter(l.service, l.provider)
	if err != nil {
		return nil, err
	}
	streams := l.start(ctx, l.seconds+grace, 0)
	streams.wait(waiting + l.seconds + grace)
	used, err := meter.stop()
	if err != nil {
		return nil, err
	}
	all, err := streams.stop()
	if err != nil {
		return nil, err
	}
	result := pacedResult{}
	var delays, begun []int64
	arrived := 0
	for _, one := range all {
		arrived += len(one.samples)
		if len(one.samples) > 0 {
			first := one.samples[0].sent
			delays = delaysIn(delays, one.samples, first, first+int64(l.seconds))
			begun = append(begun, one.samples[0].arrived-one.begun.UnixNano())
		}
	}
	slices.Sort(begun)
	result.Begun = len(begun)
	result.FirstP50, result.FirstP99 = percentile(begun, 0.50), percentile(begun, 0.99)
	result.delivery = deliveryOf(delays, l.due(l.seconds))
	result.cost = used.per(arrived)
	return result, nil
}

// due returns the number of tokens that the provider is asked for in a time.
func (l *load) due(during time.Duration) int {
	return int(math.Round(float64(l.runs*l.rate) * during.Seconds()))
}

// stream is one run and what arrived of it.
type stream struct {
	begun   time.Time
	samples []sample
	err     error
}

// streams are the runs of a load.
type streams struct {
	all    []*stream
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// start starts the runs, a step apart; each gets tokens for so long at least.
func (l *load) start(ctx context.Context, during, step time.Duration) *streams {
	ctx, cancel := context.WithCancel(ctx)
	tokens := int(math.Ceil(float64(l.rate) * during.Seconds()))
	prompt := fmt.Sprintf("tokens=%d rate=%d hold=", tokens, l.rate)
	found := &streams{cancel: cancel}
	begin := time.Now()
	for index := range l.runs {
		one := &stream{samples: make([]sample, 0, tokens)}
		found.all = append(found.all, one)
		found.ended.Go(func() {
			time.Sleep(time.Until(begin.Add(time.Duration(index) * step)))
			one.begun = time.Now()
			if err := l.reader(index)(ctx, prompt, one.add); err != nil && ctx.Err() == nil {
				one.err = err
			}
		})
	}
	return found
}

// add takes the text of a token, which is the time at which it was sent.
func (s *stream) add(text []byte) {
	arrived := time.Now().UnixNano()
	sent, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		s.err = fmt.Errorf("a token is not a time: %w", err)
		return
	}
	s.samples = append(s.samples, sample{sent, arrived})
}

// wait waits until all have ended, but not longer than that.
func (s *streams) wait(longest time.Duration) {
	timer := time.AfterFunc(longest, s.cancel)
	s.ended.Wait()
	timer.Stop()
}

// stop ends the streams and returns them. That some failed is part of the result; that all
// failed is an error.
func (s *streams) stop() ([]*stream, error) {
	s.cancel()
	s.ended.Wait()
	failed := slices.DeleteFunc(slices.Clone(s.all), func(one *stream) bool { return one.err == nil })
	if len(failed) == len(s.all) {
		return nil, failed[0].err
	}
	if len(failed) > 0 {
		log.Printf("%d of %d runs failed, the first with: %v", len(failed), len(s.all), failed[0].err)
	}
	return s.all, nil
}
