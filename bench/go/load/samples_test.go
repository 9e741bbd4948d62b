package main

import "testing"

const ms = 1_000_000

func TestDeliveryIsOfTheTokensDue(t *testing.T) {
	var delays []int64
	for index := range int64(100) {
		delays = append(delays, (100-index)*ms) // 100 ms down to 1 ms
	}
	found := deliveryOf(delays, 200)
	want := delivery{Due: 200, Delivered: 0.5, Within50: 0.25, Within100: 0.5, P50: 50, P99: 99}
	if found != want {
		t.Fatalf("%+v, not %+v", found, want)
	}
}

func TestWhereNothingArrivesThereAreNoPercentiles(t *testing.T) {
	if found := deliveryOf(nil, 10); found != (delivery{Due: 10, P50: -1, P99: -1}) {
		t.Fatalf("%+v", found)
	}
}

func TestATimeSpanHasItsBeginningAndNotItsEnd(t *testing.T) {
	samples := []sample{{sent: 10, arrived: 15}, {sent: 20, arrived: 25}, {sent: 30, arrived: 35}}
	if found := delaysIn(nil, samples, 10, 30); len(found) != 2 {
		t.Fatal(found)
	}
	if found := arrivedIn(samples, 15, 35); found != 2 {
		t.Fatal(found)
	}
}
