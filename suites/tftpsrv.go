package suites

import (
	"bytes"
	"context"
	"hash/crc32"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/tftp"
)

// TFTPSrv is a pack of specs for U-Boot's tftpsrv: the board is the server that a
// client puts firmware on. It is skipped where U-Boot has no tftpsrv
// (CONFIG_CMD_TFTPSRV).
func TFTPSrv(board func() *fixture.Board) bool {
	return Describe("tftpsrv", func() {
		DescribeTable("takes a file from a client", func(ctx SpecContext, size int) {
			board().RequireCommand(ctx, "tftpsrv")
			content := pattern(size)
			device := board().Device()
			client := &tftp.Client{ListenPacket: device.ListenPacket}
			type result struct {
				record tftp.Transfer
				err    error
			}
			done := make(chan result, 1)
			load, err := board().UBoot.TFTPSrv(ctx, 0, func() {
				go func() {
					record, err := client.Put(ctx, netip.AddrPortFrom(device.BoardAddr().Addr(), 69), "firmware", bytes.NewReader(content))
					done <- result{record, err}
				}()
			})
			Expect(err).NotTo(HaveOccurred())
			put := <-done
			Expect(put.err).NotTo(HaveOccurred())
			Expect(put.record.Outcome).To(Equal(tftp.Complete))
			Expect(load.Size).To(BeEquivalentTo(size))
			crc, err := board().UBoot.CRC32(ctx, load.Addr, load.Size)
			Expect(err).NotTo(HaveOccurred())
			Expect(crc).To(Equal(crc32.ChecksumIEEE(content)))
		},
			Entry("of one byte", 1, SpecTimeout(30*time.Second)),
			Entry("of an exact multiple of 512", 64*512, SpecTimeout(30*time.Second)),
			Entry("of 1 MiB", 1<<20, SpecTimeout(time.Minute)),
		)

		It("goes back to its prompt when no client comes", func(ctx SpecContext) {
			board().RequireCommand(ctx, "tftpsrv")
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			_, err := board().UBoot.TFTPSrv(short, 0, func() {})
			Expect(err).To(HaveOccurred())
			Expect(board().UBoot.Run(ctx, "echo here")).To(Equal("here"))
		}, SpecTimeout(30*time.Second))
	})
}
