package tftp

import (
	"fmt"
	"io"
	"time"
)

// target is where a received file goes.
type target struct {
	io.Writer
	limit  int64        // bytes of payload that are taken at most; negative for any number
	commit func() error // called when all is written, before the last block is acknowledged
}

// receiveFile takes a file from the peer and stores it (RFC 1350, RFC 7440).
// prompt is the packet that has the peer send block 1, repeated until that
// comes: an OACK or ACK 0. packet is block 1 if that came already, else nil.
func (x *exchange) receiveFile(t target, prompt, packet []byte) error {
	var (
		next     int64 = 1 // the block expected
		acked    int64 = 0 // the block acknowledged last
		size           = int64(x.windowSize)
		received int64
		gap      = false // the block expected was reported missing
	)
	x.quiet = time.Now()
	if packet == nil {
		if err := x.send(prompt); err != nil {
			return err
		}
	}
	sent := time.Now()
	answer := func() error { // has the peer go on from next
		sent = time.Now()
		acked = next - 1
		if next == 1 {
			return x.send(prompt)
		}
		return x.sendAck(acked)
	}
	for {
		if packet == nil {
			var err error
			packet, _, err = x.receive(x.until(sent))
			if err != nil {
				if err := x.resume(err, 1); err != nil {
					return fmt.Errorf("block %d: %w", next, err)
				}
				if err := answer(); err != nil {
					return err
				}
				continue
			}
		}
		block, ok := blockNumber(packet, OpData)
		if !ok {
			oack := opcode(packet) == OpOAck && next == 1
			packet = nil
			if oack { // it came again: the peer has not seen our answer
				x.update(func(t *Transfer) { t.Duplicates++; t.Resent++ })
				if err := answer(); err != nil {
					return err
				}
				continue
			}
			x.update(func(t *Transfer) { t.Strays++ })
			continue
		}
		payload := packet[headerSize:]
		packet = nil
		if len(payload) > x.blockSize {
			return fmt.Errorf("block %d: %w", next, &Error{CodeIllegalOperation, "Block larger than agreed"})
		}
		if ahead := int64(block - uint16(next)); ahead != 0 {
			switch {
			case ahead < size && !gap:
				// Said once: each block behind the gap would otherwise bring
				// the whole window again.
				gap = true
				x.update(func(t *Transfer) { t.Gaps++ })
				if err := answer(); err != nil {
					return err
				}
			case ahead < size:
			case block == uint16(acked) && acked == next-1 && next > 1:
				// The last block of the window came again: our ACK was lost.
				x.update(func(t *Transfer) { t.Duplicates++; t.Resent++ })
				if err := answer(); err != nil {
					return err
				}
			default:
				x.update(func(t *Transfer) { t.Duplicates++ })
			}
			continue
		}

		gap = false
		received += int64(len(payload))
		if t.limit >= 0 && received > t.limit {
			return fmt.Errorf("block %d: %w (%d bytes)", next, errTooLarge, t.limit)
		}
		if _, err := t.Write(payload); err != nil {
			return fmt.Errorf("block %d: write the file: %w", next, err)
		}
		last := len(payload) < x.blockSize
		if last {
			if x.size >= 0 && received != x.size && x.record.Mode == modeOctet {
				return fmt.Errorf("block %d: %w: %d bytes of %d", next, errShort, received, x.size)
			}
			if err := t.commit(); err != nil {
				return fmt.Errorf("store the file: %w", err)
			}
			x.isStored()
		}
		next++
		now := time.Now()
		x.quiet = now
		if last || next-1-acked >= size {
			sent = now
			acked = next - 1
			if err := x.sendAck(acked); err != nil && !last {
				return err
			}
		}
		x.acknowledged(next-1, int64(len(payload)), now)
		x.digest(payload) // after the ACK, while the peer is at work
		if last {
			return nil
		}
	}
}

// stay acknowledges the last block when it comes again after the end, since the
// ACK may have been lost (RFC 1350 section 6). It ends after the time dally, and
// at once when the exchange is canceled.
func (x *exchange) stay(dally time.Duration) {
	end := time.Now().Add(dally)
	last := uint16(x.snapshot().Blocks)
	for {
		packet, _, err := x.receive(end)
		if err == errNudged && x.stopped() == nil {
			continue
		}
		if err != nil {
			return
		}
		if block, ok := blockNumber(packet, OpData); ok && block == last {
			x.update(func(t *Transfer) { t.Duplicates++; t.Resent++ })
			if x.sendAck(int64(last)) != nil {
				return
			}
		}
	}
}
