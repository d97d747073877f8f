package tftp_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

// A board whose power was cut is waited for no longer; another one's transfer
// goes on.
func TestAbandon(t *testing.T) {
	server := &tftp.Server{FS: files("f", 1600)}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		other := newPeer(t, n, "192.168.7.3:1070")
		defer other.conn.Close()
		for _, peer := range []*peer{p, other} {
			peer.request(tftp.OpRead, "f", "octet")
			peer.expect("DATA 1 (512 bytes)")
		}
		cause := errors.New("the plug was pulled")
		server.Abandon(netip.MustParseAddr("192.168.7.2"), cause)
		p.expectSilence(500 * time.Millisecond)
		for _, transfer := range server.Transfers() {
			switch transfer.Peer.Addr() {
			case netip.MustParseAddr("192.168.7.2"):
				if transfer.Outcome != tftp.Aborted || !errors.Is(transfer.Err, cause) || transfer.Duration() > 0 {
					t.Errorf("record %v", transfer)
				}
			default:
				if transfer.Outcome != tftp.Running {
					t.Errorf("the other's record %v", transfer)
				}
			}
		}
		// It is served again when it asks.
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
	})
}
