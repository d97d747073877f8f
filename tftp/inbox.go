package tftp

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// inbox is a queue of packets with a read deadline: the receiving half of a
// socket whose packets someone else reads. put may be called by several
// goroutines, read by one.
type inbox struct {
	limit int           // packets held at most, more are dropped as a kernel would; 0 for no limit
	wake  chan struct{} // holds one token: something changed
	timer *time.Timer   // read's

	mu       sync.Mutex // guards all below
	slots    []slot     // a ring; data is used again
	first, n int
	deadline time.Time
	closed   bool
}

type slot struct {
	data []byte
	from netip.AddrPort
	due  time.Time // not to be read before; zero for at once
}

func newInbox(limit int) *inbox {
	return &inbox{limit: limit, wake: make(chan struct{}, 1), slots: make([]slot, 4)}
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// put copies a packet into the queue. Packets stay in order: one is due no
// sooner than the one before it.
func (b *inbox) put(packet []byte, from netip.AddrPort, due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.limit > 0 && b.n == b.limit {
		return
	}
	if b.n == len(b.slots) {
		grown := make([]slot, 2*len(b.slots))
		for i := range b.n {
			grown[i] = b.slots[(b.first+i)%len(b.slots)]
		}
		b.slots, b.first = grown, 0
	}
	if b.n > 0 {
		if before := b.slots[(b.first+b.n-1)%len(b.slots)].due; due.Before(before) {
			due = before
		}
	}
	s := &b.slots[(b.first+b.n)%len(b.slots)]
	s.data, s.from, s.due = append(s.data[:0], packet...), from, due
	b.n++
	b.signal()
}

// read waits for a packet until the deadline, or until close.
func (b *inbox) read(p []byte) (int, netip.AddrPort, error) {
	for {
		b.mu.Lock()
		var wait time.Time // zero: for ever
		switch {
		case b.closed:
			b.mu.Unlock()
			return 0, netip.AddrPort{}, net.ErrClosed
		case b.n > 0:
			s := &b.slots[b.first]
			if s.due.IsZero() || !time.Now().Before(s.due) {
				n, from := copy(p, s.data), s.from
				b.first = (b.first + 1) % len(b.slots)
				b.n--
				b.mu.Unlock()
				return n, from, nil
			}
			wait = s.due
		}
		if !b.deadline.IsZero() {
			if !time.Now().Before(b.deadline) {
				b.mu.Unlock()
				return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
			}
			if wait.IsZero() || b.deadline.Before(wait) {
				wait = b.deadline
			}
		}
		b.mu.Unlock()
		if wait.IsZero() {
			<-b.wake
			continue
		}
		if b.timer == nil {
			b.timer = time.NewTimer(time.Until(wait))
		} else {
			b.timer.Reset(time.Until(wait))
		}
		select {
		case <-b.wake:
		case <-b.timer.C:
		}
		b.timer.Stop()
	}
}

func (b *inbox) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deadline = t
	b.signal()
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.signal()
}
