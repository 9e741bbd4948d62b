package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what processes have used so far.
type usage struct {
	cpu     time.Duration
	written int64
}

// processes are measured together.
type processes []int

// String returns the ids of the processes, with commas.
func (p *processes) String() string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(*p), "[]"), " ", ",")
}

// Set takes ids of processes, with commas.
func (p *processes) Set(ids string) error {
	for text := range strings.SplitSeq(ids, ",") {
		id, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		*p = append(*p, id)
	}
	return nil
}

// families returns the processes and their descendants.
func (p processes) families() processes {
	var found processes
	for _, pid := range p {
		found = append(found, pid)
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, file := range files {
			text, _ := os.ReadFile(file) // empty if the thread has ended
			var children processes
			for _, child := range bytes.Fields(text) {
				id, _ := strconv.Atoi(string(child))
				children = append(children, id)
			}
			found = append(found, children.families()...)
		}
	}
	return found
}

// usage returns the CPU time of the processes, of all threads, and the bytes they sent to the disk.
func (p processes) usage() (usage, error) {
	var sum usage
	for _, pid := range p {
		cpu, err := cpuOf(pid)
		if err != nil {
			return usage{}, err
		}
		written, err := writtenBy(pid)
		if err != nil {
			return usage{}, err
		}
		sum.cpu += cpu
		sum.written += written
	}
	return sum, nil
}

// cpuOf reads the CPU clock of a process, whose id is that of clock_getcpuclockid(3).
func cpuOf(pid int) (time.Duration, error) {
	const sched = 2
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &spent); err != nil {
		return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(spent.Nano()), nil
}

func writtenBy(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(text, []byte("\nwrite_bytes: "))
	number, _, _ := bytes.Cut(after, []byte("\n"))
	return strconv.ParseInt(string(number), 10, 64)
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		panic(err) // with a valid argument it cannot fail
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// cost is what a delivered token took, in microseconds of CPU, and what the service wrote for
// it to the disk, in bytes.
type cost struct {
	Service  float64 `json:"service_us"`
	Provider float64 `json:"provider_us"`
	Client   float64 `json:"client_us"`
	Written  float64 `json:"written_bytes"`
}

// meter measures costs between its start and a call of stop.
type meter struct {
	service, provider processes
	begun             readings
}

type readings struct {
	service, provider usage
	client            time.Duration
}

func startMeter(service, provider processes) (*meter, error) {
	m := &meter{service: service.families(), provider: provider.families()}
	var err error
	m.begun, err = m.read()
	return m, err
}

func (m *meter) read() (readings, error) {
	service, err := m.service.usage()
	if err != nil {
		return readings{}, err
	}
	provider, err := m.provider.usage()
	return readings{service, provider, ownCPU()}, err
}

// stop returns what has been used since the start.
func (m *meter) stop() (readings, error) {
	now, err := m.read()
	now.service.cpu -= m.begun.service.cpu
	now.service.written -= m.begun.service.written
	now.provider.cpu -= m.begun.provider.cpu
	now.client -= m.begun.client
	return now, err
}

// per returns the cost of each of so many tokens.
func (r readings) per(tokens int) cost {
	each := func(spent time.Duration) float64 {
		return float64(spent) / float64(time.Microsecond) / float64(max(tokens, 1))
	}
	return cost{
		Service:  each(r.service.cpu),
		Provider: each(r.provider.cpu),
		Client:   each(r.client),
		Written:  float64(r.service.written) / float64(max(tokens, 1)),
	}
}
