package main

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clock ticks at a fixed rate from a random phase.
//
// It is a timerfd: Go's own timers fire in steps of a millisecond while the process waits for
// sockets, so that tokens of different answers would leave together.
type clock struct {
	*os.File
	expired [8]byte
}

func startClock(rate int) (*clock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	step := int64(time.Second) / int64(rate)
	times := unix.ItimerSpec{
		Interval: unix.NsecToTimespec(step),
		Value:    unix.NsecToTimespec(1 + rand.Int64N(step)),
	}
	file := os.NewFile(uintptr(fd), "timerfd")
	if err := unix.TimerfdSettime(fd, 0, &times, nil); err != nil {
		file.Close()
		return nil, os.NewSyscallError("timerfd_settime", err)
	}
	return &clock{File: file}, nil
}

// wait returns after the next tick; more than one if some have passed already.
func (c *clock) wait() (uint64, error) {
	if _, err := c.Read(c.expired[:]); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(c.expired[:]), nil
}
