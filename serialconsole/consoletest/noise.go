// Package consoletest has ports for testing what drives a console: what real
// lines do only when they please.
package consoletest

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Noise is a line that spoils characters: each byte, in either direction, with
// the probabilities given, and the same ones for the same seed and traffic.
type Noise struct {
	Seed      uint64
	Drop      float64       // that a byte is lost
	Double    float64       // that it comes twice
	Flip      float64       // that one of its bits is flipped
	Delay     float64       // that it, and all behind it, waits for DelayTime
	DelayTime time.Duration // 1 ms if zero
}

// NoisyPort is a port behind a noisy line.
type NoisyPort struct {
	port     io.ReadWriteCloser
	in, out  direction
	closed   chan struct{}
	close    sync.Once
	closeErr error
}

// Wrap puts the noise between a port and its user. The port is closed with it.
func (n Noise) Wrap(port io.ReadWriteCloser) *NoisyPort {
	if n.DelayTime == 0 {
		n.DelayTime = time.Millisecond
	}
	return &NoisyPort{
		port:   port,
		in:     direction{noise: n, dice: rand.New(rand.NewPCG(n.Seed, 1))},
		out:    direction{noise: n, dice: rand.New(rand.NewPCG(n.Seed, 2))},
		closed: make(chan struct{}),
	}
}

// Read implements io.Reader. Its calls must not overlap.
func (p *NoisyPort) Read(b []byte) (int, error) {
	for {
		if p.in.ready() {
			if err := p.in.wait(p.closed); err != nil {
				return 0, err
			}
			return p.in.take(b), nil
		}
		// A byte may become two.
		raw := make([]byte, max(1, len(b)/2))
		n, err := p.port.Read(raw)
		p.in.add(raw[:n])
		if err != nil && !p.in.ready() {
			return 0, err
		}
	}
}

// Write implements io.Writer. Its calls must not overlap.
func (p *NoisyPort) Write(b []byte) (int, error) {
	p.out.add(b)
	spoiled := make([]byte, 2*len(b))
	for p.out.ready() {
		if err := p.out.wait(p.closed); err != nil {
			return 0, err
		}
		if _, err := p.port.Write(spoiled[:p.out.take(spoiled)]); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// Close implements io.Closer.
func (p *NoisyPort) Close() error {
	p.close.Do(func() {
		close(p.closed)
		p.closeErr = p.port.Close()
	})
	return p.closeErr
}

// Spoiled returns how many bytes were spoiled so far, read and written.
func (p *NoisyPort) Spoiled() (read, written int) { return p.in.count(), p.out.count() }

// direction is one direction of a noisy line.
type direction struct {
	noise Noise
	dice  *rand.Rand

	mu      sync.Mutex // guards all below
	pieces  []piece
	spoiled int
}

// piece is text that goes on together, after a delay or none.
type piece struct {
	text  []byte
	delay bool
}

func (d *direction) add(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var now piece
	for _, c := range b {
		chance := d.dice.Float64()
		happens := func(probability float64) bool {
			chance -= probability
			if chance < 0 {
				d.spoiled++
				chance = 1 // and nothing else
				return true
			}
			return false
		}
		switch {
		case happens(d.noise.Drop):
		case happens(d.noise.Double):
			now.text = append(now.text, c, c)
		case happens(d.noise.Flip):
			now.text = append(now.text, c^1<<d.dice.IntN(8))
		case happens(d.noise.Delay):
			if len(now.text) > 0 {
				d.pieces = append(d.pieces, now)
			}
			now = piece{text: []byte{c}, delay: true}
		default:
			now.text = append(now.text, c)
		}
	}
	if len(now.text) > 0 {
		d.pieces = append(d.pieces, now)
	}
}

func (d *direction) ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pieces) > 0
}

func (d *direction) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spoiled
}

// wait waits for the first piece's delay.
func (d *direction) wait(closed <-chan struct{}) error {
	d.mu.Lock()
	delay := d.pieces[0].delay
	d.pieces[0].delay = false
	d.mu.Unlock()
	if !delay {
		return nil
	}
	timer := time.NewTimer(d.noise.DelayTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-closed:
		return net.ErrClosed
	}
}

func (d *direction) take(b []byte) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := copy(b, d.pieces[0].text)
	if d.pieces[0].text = d.pieces[0].text[n:]; len(d.pieces[0].text) == 0 {
		d.pieces = d.pieces[1:]
	}
	return n
}
