package tftp

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// content is a file to be sent.
type content struct {
	io.Reader
	size  int64 // bytes; negative if unknown
	ready bool  // reading does not wait for anything that this transfer may have to bring about
	close func() error
}

// sizedReader reads a file of a known size, neither more nor less.
type sizedReader struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (s *sizedReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = errChanged
	}
	return n, err
}

// window holds the blocks of a file that are under way, and as many more read
// ahead or not digested yet. Blocks are counted from 1 without bound; their
// number on the wire is the count modulo 65536.
type window struct {
	file      io.Reader
	blockSize int
	packets   [][]byte // DATA packets, by place; made when first needed
	memory    []byte   // what packets are made of, one behind the other; nil for separate ones
	read      int64    // the last block read from the file
	last      int64    // the file's last block, which is the first that is not full; 0 until it was read
	err       error    // what reading block read+1 came to
}

func newWindow(file io.Reader, blockSize, windowSize int) *window {
	w := &window{file: file, blockSize: blockSize, packets: make([][]byte, 2*windowSize)}
	if size := len(w.packets) * (headerSize + blockSize); windowSize > 1 && size <= 1<<20 {
		w.memory = make([]byte, size)
	}
	return w
}

// place returns a block's index in packets. The first block has the first one,
// so that windows lie in one piece.
func (w *window) place(block int64) int { return int((block - 1) % int64(len(w.packets))) }

// together returns the DATA packets of the blocks first to last, or of as many
// as may be sent in one call, one behind the other.
func (w *window) together(first, last int64) (packets []byte, blocks int64) {
	stride, at := headerSize+w.blockSize, w.place(first)
	blocks = min(last-first+1, int64(len(w.packets)-at), maxSegments, int64(maxTogether/stride))
	if w.memory == nil || blocks < 2 {
		return nil, 0
	}
	end := (at+int(blocks)-1)*stride + len(w.packet(first+blocks-1))
	return w.memory[at*stride : end], blocks
}

// packet returns the DATA packet of a block that was read.
func (w *window) packet(block int64) []byte {
	return w.packets[w.place(block)]
}

func (w *window) payload(block int64) []byte { return w.packet(block)[headerSize:] }

// fill reads the next block into its place.
func (w *window) fill() error {
	if w.err != nil {
		return w.err
	}
	block := w.read + 1
	at, stride := w.place(block), headerSize+w.blockSize
	slot := &w.packets[at]
	switch {
	case cap(*slot) > 0:
	case w.memory != nil:
		*slot = w.memory[at*stride : (at+1)*stride : (at+1)*stride]
	default:
		*slot = make([]byte, stride)
	}
	packet := (*slot)[:stride]
	putHeader(packet, OpData, uint16(block))
	n, err := io.ReadFull(w.file, packet[headerSize:])
	switch err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		w.last = block
	default:
		w.err = fmt.Errorf("block %d: read the file: %w", block, err)
		return w.err
	}
	*slot = packet[:headerSize+n]
	w.read = block
	return nil
}

// size returns the payload bytes of the blocks first to last.
func (w *window) size(first, last int64) int64 {
	if last < first {
		return 0
	}
	return (last-first)*int64(w.blockSize) + int64(len(w.payload(last)))
}

// burstGaps is after how many gaps a window is sent in bursts of half the size,
// paceWait how long the peer gets between two of them, and burstClean after how
// many windows without a gap bursts grow again.
const (
	burstGaps  = 3
	paceWait   = time.Millisecond
	burstClean = 64
)

// lookWait is how long to look for the last ACK when the peer has made a new
// request: it is there, or it was not sent before that.
const lookWait = 100 * time.Microsecond

// sendFirst sends a packet until the peer acknowledges it as block 0: an OACK
// (RFC 2347).
func (x *exchange) sendFirst(packet []byte) error {
	x.quiet = time.Now()
	for {
		if err := x.send(packet); err != nil {
			return err
		}
		sent := time.Now()
		for {
			answer, _, err := x.receive(x.until(sent))
			if err == nil {
				block, ok := blockNumber(answer, OpAck)
				if ok && block == 0 {
					x.acknowledged(0, 0, time.Now())
					return nil
				}
				x.update(func(t *Transfer) { t.Strays++ })
				continue
			}
			if err := x.resume(err, 1); err != nil {
				return fmt.Errorf("option acknowledgement: %w", err)
			}
			break
		}
	}
}

// sendBlocks sends the blocks first to last, or as many of them as go together,
// and returns their number.
func (x *exchange) sendBlocks(w *window, first, last int64) (int64, error) {
	if s, ok := x.socket.(segmenter); ok && !x.apart {
		if packets, blocks := w.together(first, last); blocks > 1 {
			if err := s.WriteSegments(packets, headerSize+w.blockSize, x.peer); err == nil {
				return blocks, nil
			}
			// Blocks larger than the path's MTU, for one, go only apart. Should
			// it be another error it comes again.
			x.apart = true
		}
	}
	return 1, x.send(w.packet(first))
}

// resume decides what becomes of a transfer whose receive returned err: nil
// says to send again the packets that are under way, resend of them.
func (x *exchange) resume(err error, resend int) error {
	switch err {
	case errWait:
		return x.waited(resend)
	case errNudged:
		if err := x.stopped(); err != nil {
			return err
		}
		x.update(func(t *Transfer) { t.Resent += resend })
		return nil
	}
	return err
}

// sendFile sends a file in windows and goes back to the first block that is
// missing (RFC 7440); a window of one block is RFC 1350.
func (x *exchange) sendFile(file content) error {
	w := newWindow(file, x.blockSize, x.windowSize)
	var (
		size           = int64(x.windowSize)
		first    int64 = 1    // the first block that is not acknowledged
		next     int64 = 1    // the next block to send
		top      int64 = 1    // one past the last block ever sent
		digested int64 = 0    // the last block taken into the checksums
		reacted  int64 = 0    // first, when a gap was last answered
		repeated int64 = 0    // first, when a repeated ACK was last answered
		burst          = size // blocks sent without a look at what the peer says
		gaps           = 0
		clean          = 0    // windows since the last gap
		fresh          = true // the peer owes nothing until more is sent
	)
	giveUp := x.giveUp
	defer func() { x.giveUp = giveUp }()
	digest := func() {
		for ; digested < first-1; digested++ {
			x.digest(w.payload(digested + 1))
		}
	}
	defer digest()
	back := func() { // to the first block missing
		x.update(func(t *Transfer) {
			t.Gaps++
			t.Resent += int(next - first)
		})
		next, reacted, clean = first, first, 0
		if gaps++; gaps%burstGaps == 0 && burst > 1 {
			burst /= 2 // a receiver that drops what comes too fast
		}
	}
	more := func() bool { return next < first+size && (w.last == 0 || next <= w.last) }
	for {
		for sent := int64(0); sent < burst && more(); {
			if next > w.read {
				digest() // of blocks whose place is needed
				if err := w.fill(); err != nil {
					if stop := x.stopped(); stop != nil {
						return stop
					}
					return err
				}
			}
			n, err := x.sendBlocks(w, next, min(w.read, first+size-1, next+burst-sent-1))
			if err != nil {
				return err
			}
			next, sent = next+n, sent+n
			if next-1 == w.last {
				x.lastSent()
				x.giveUp = min(giveUp, max(linger, 2*x.timeout))
			}
			top = max(top, next)
		}
		now := time.Now()
		if fresh {
			x.quiet, fresh = now, false
		}
		// While the packets travel: the work that need not wait for an answer.
		digest()
		if file.ready {
			for w.read < first-1+2*size && w.last == 0 && w.err == nil {
				_ = w.fill() // w.err holds the error until the block is due
			}
		}

		until := x.until(now)
		looking := false // for an ACK that came before a new request
		paced := more()
		if paced {
			until = now.Add(paceWait)
		}
		var acked int64
		for acked = -1; acked < 0; {
			packet, _, err := x.receive(until)
			if err == errWait && paced {
				break
			}
			if err == errNudged && !looking && x.asked() != nil {
				looking, until = true, time.Now().Add(lookWait)
				continue
			}
			if looking && err == errWait {
				looking, until = false, x.until(now)
				resend, over := x.askedAnew()
				if over != nil {
					return over
				}
				if !resend {
					continue
				}
				err = errNudged
			}
			if err != nil {
				if err := x.resume(err, int(next-first)); err != nil {
					if errors.Is(err, ErrTimeout) && x.tail {
						return fmt.Errorf("%w: %w", errUnconfirmed, err)
					}
					return fmt.Errorf("block %d: %w", first, err)
				}
				next = first
				break
			}
			block, ok := blockNumber(packet, OpAck)
			if !ok {
				x.update(func(t *Transfer) { t.Strays++ })
				continue
			}
			// The distance from the last block acknowledged, as far as there is
			// anything under way; what lies outside is old.
			if distance := int64(block - uint16(first-1)); distance <= top-first {
				acked = first - 1 + distance
			} else {
				x.update(func(t *Transfer) { t.Duplicates++ })
			}
			if acked != first-1 {
				continue
			}
			// A repeated ACK says that the first block of a window was lost. At
			// a window of one it is left to the timer: to answer it would double
			// every packet from then on (RFC 1123 section 4.2.3.1). For the same
			// reason it is not answered twice within two windows.
			x.update(func(t *Transfer) { t.Duplicates++ })
			if size == 1 || reacted == first || repeated != 0 && first-repeated <= size {
				acked = -1
				continue
			}
			repeated = first
			back()
		}
		if acked < first {
			continue
		}
		x.acknowledged(acked, w.size(first, acked), time.Now())
		fresh = true
		first = acked + 1
		if acked == w.last {
			return nil
		}
		if next = max(next, first); first < next {
			back() // an ACK within the window says that the block after it is missing
		} else if clean++; clean%burstClean == 0 {
			burst = min(2*burst, size)
		}
	}
}
