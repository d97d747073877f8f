// Package netboot_test is a whole suite: a board, a TFTP server scoped to one
// spec, and a load that is proved on both sides. It runs on any board that
// BOARDSPEC_BOARD names.
package netboot_test

import (
	"bytes"
	"testing"
	"testing/fstest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"

	"github.com/boardspec/boardspec/fixture"
	. "github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/fixture/bench"
)

func TestNetboot(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "netboot")
}

// image stands for the firmware under test.
var image = bytes.Repeat([]byte("boardspec netboot example image\n"), 1<<15)

var board *fixture.Board

var _ = BeforeSuite(func(ctx SpecContext) {
	board = fixture.NewBoard(ctx, bench.Select(ctx)) // which device: one environment variable
}, NodeTimeout(3*time.Minute))

var _ = Describe("netboot", func() {
	It("loads the image it was served", func(ctx SpecContext) {
		server := board.ServeTFTP(ctx, fstest.MapFS{"uImage": {Data: image}})
		load := board.TFTPBoot(ctx, "uImage")

		Expect(server).To(HaveServed("uImage").Once())
		Expect(load).To(MatchServed(server)) // size and digest, board side against server side
		Expect(board).To(gbytes.Say(`Bytes transferred = %d`, len(image)))
	}, SpecTimeout(30*time.Second))
})
