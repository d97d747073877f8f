package tftp

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"
)

// Outcome says how a transfer ended.
type Outcome int

// The outcomes.
const (
	// Running: it has not ended.
	Running Outcome = iota
	// Complete: every block was acknowledged, and what was received is stored.
	Complete
	// Unconfirmed: the last block was sent, its acknowledgement was not seen.
	// The peer may well have the whole file.
	Unconfirmed
	// Failed: refused, given up, or broken on this side.
	Failed
	// Aborted: the peer sent an ERROR, began anew from the same port, or is gone
	// for a reason that Server.Abandon was given.
	Aborted
	// Canceled: the server was closed, or the client's context ended.
	Canceled
)

// String returns the outcome in one lower-case word.
func (o Outcome) String() string {
	switch o {
	case Running:
		return "running"
	case Complete:
		return "complete"
	case Unconfirmed:
		return "unconfirmed"
	case Failed:
		return "failed"
	case Aborted:
		return "aborted"
	case Canceled:
		return "canceled"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Transfer is the record of one transfer, refused requests included. It is a
// copy: that of a running transfer shows how far it was.
type Transfer struct {
	Op         Op                // OpRead or OpWrite
	Filename   string            // as the client spelled it
	Mode       string            // "octet" or "netascii", in lower case
	Peer       netip.AddrPort    // the other side's address and TID
	Local      netip.AddrPort    // this side's address and TID; zero where a request was refused before it had one
	Requested  map[string]string // options asked for, names in lower case; not to be changed
	Granted    map[string]string // options in the OACK, names in lower case; not to be changed
	BlockSize  int               // bytes
	WindowSize int               // blocks

	Size       int64             // payload bytes that the receiving side acknowledged
	TotalSize  int64             // bytes to be transferred where known (tsize, a file's size), else -1
	Blocks     int64             // DATA packets that the receiving side acknowledged, an empty last one included
	Resent     int               // packets sent more than once, requests and OACKs included
	Duplicates int               // packets received more than once
	Gaps       int               // times that a packet of a window was missing
	Timeouts   int               // waits for the peer that were in vain
	Strays     int               // packets from another TID, and packets that make no sense here
	SHA256     [sha256.Size]byte // of the payload acknowledged, once the transfer ended
	CRC32      uint32            // IEEE, of the payload acknowledged, once the transfer ended: what U-Boot's crc32 prints
	Faults     []string          // what a script of faults did to it, in order

	Outcome Outcome
	Err     error     // nil only while Running and when Complete
	Start   time.Time // when the request arrived, or was sent
	End     time.Time // zero while running
}

// Duration returns how long the transfer took, up to now while it runs.
func (t Transfer) Duration() time.Duration {
	if t.End.IsZero() {
		return time.Since(t.Start)
	}
	return t.End.Sub(t.Start)
}

// String returns the record in one line.
func (t Transfer) String() string {
	text := fmt.Sprintf("%v %q by %v: %v, %d bytes in %d blocks of %d, window %d",
		t.Op, t.Filename, t.Peer, t.Outcome, t.Size, t.Blocks, t.BlockSize, t.WindowSize)
	if t.Resent+t.Duplicates+t.Gaps+t.Timeouts > 0 {
		text += fmt.Sprintf(", %d resent, %d duplicates, %d gaps, %d timeouts", t.Resent, t.Duplicates, t.Gaps, t.Timeouts)
	}
	if t.Err != nil {
		text += ": " + t.Err.Error()
	}
	return text
}
