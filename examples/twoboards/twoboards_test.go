// Package twoboards_test has two boards on one network segment: both load the
// same image, one of them over a cable that doubles frames.
package twoboards_test

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/fstest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/boardspec/boardspec/fixture"
	. "github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/fixture/virtual/cable"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

func TestTwoBoards(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "two boards")
}

// image stands for the firmware under test.
var image = bytes.Repeat([]byte("boardspec two boards example image\n"), 1<<12)

var (
	devices [2]*virtual.Board
	boards  [2]*fixture.Board
)

var _ = BeforeSuite(func(ctx SpecContext) {
	segment, err := cable.New(cable.Config{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(segment.Close)
	for i, addr := range []string{"192.168.7.2", "192.168.7.3"} {
		devices[i], err = virtual.StartProcess(ctx, virtual.Config{Segment: segment, Board: netip.MustParseAddr(addr)})
		Expect(err).NotTo(HaveOccurred())
		boards[i] = fixture.NewBoard(ctx, devices[i])
	}
}, NodeTimeout(3*time.Minute))

var _ = Describe("two boards on one segment", func() {
	It("load the same image", func(ctx SpecContext) {
		server := boards[0].ServeTFTP(ctx, fstest.MapFS{"uImage": {Data: image}}, func(s *tftp.Server) {
			s.Peers = nil // not the first board only
		})
		for _, board := range boards {
			Expect(board.TFTPBoot(ctx, "uImage")).To(MatchServed(server))
		}
		Expect(server).To(HaveServed("uImage").Times(2))
	}, SpecTimeout(30*time.Second))

	It("have each a cable of its own", func(ctx SpecContext) {
		devices[1].Cable().SetFaults(cable.Faults{Seed: 1, Duplicate: 0.1}, cable.Faults{})
		server := boards[0].ServeTFTP(ctx, fstest.MapFS{"uImage": {Data: image}}, func(s *tftp.Server) { s.Peers = nil })
		for _, board := range boards {
			Expect(board.TFTPBoot(ctx, "uImage", uboot.TFTPOptions{WindowSize: 4})).To(MatchServed(server))
		}
		good, _ := devices[0].Cable().Stats()
		bad, _ := devices[1].Cable().Stats()
		Expect(good.Duplicated).To(BeZero())
		Expect(bad.Duplicated).NotTo(BeZero())
	}, SpecTimeout(30*time.Second))
})
