package main

import (
	"math"
	"slices"
	"time"
)

// sample is a token with the times, in nanoseconds since the epoch, at which the provider sent
// it and at which it arrived.
type sample struct{ sent, arrived int64 }

// delivery says how tokens arrived. Shares are of the tokens that were due.
type delivery struct {
	Due       int     `json:"due"`
	Delivered float64 `json:"delivered"`
	Within50  float64 `json:"within_50_ms"`
	Within100 float64 `json:"within_100_ms"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// deliveryOf sums up the delays of tokens of which a number were due. Percentiles are of the
// tokens that arrived, or -1 if none did.
func deliveryOf(delays []int64, due int) delivery {
	slices.Sort(delays)
	within := func(bound time.Duration) float64 {
		count, _ := slices.BinarySearch(delays, int64(bound)+1)
		return share(count, due)
	}
	return delivery{
		Due:       due,
		Delivered: share(len(delays), due),
		Within50:  within(50 * time.Millisecond),
		Within100: within(100 * time.Millisecond),
		P50:       percentile(delays, 0.50),
		P99:       percentile(delays, 0.99),
	}
}

func share(count, of int) float64 { return float64(count) / float64(of) }

// percentile returns a percentile of sorted nanoseconds in milliseconds.
func percentile(sorted []int64, part float64) float64 {
	if len(sorted) == 0 {
		return -1
	}
	index := int(math.Ceil(part*float64(len(sorted)))) - 1
	return float64(sorted[max(index, 0)]) / 1e6
}

// delaysIn appends the delays of the samples that were sent in [first, last).
func delaysIn(delays []int64, samples []sample, first, last int64) []int64 {
	for _, one := range samples {
		if first <= one.sent && one.sent < last {
			delays = append(delays, one.arrived-one.sent)
		}
	}
	return delays
}

// arrivedIn counts the samples that arrived in [first, last).
func arrivedIn(samples []sample, first, last int64) int {
	count := 0
	for _, one := range samples {
		if first <= one.arrived && one.arrived < last {
			count++
		}
	}
	return count
}
