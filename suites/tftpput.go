package suites

import (
	"errors"
	"fmt"
	"hash/crc32"
	"testing/fstest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

// TFTPPut is a pack of specs for U-Boot's tftpput: the board uploads files of
// every kind of size, and is told when it may not. It is skipped where U-Boot
// has no tftpput (CONFIG_CMD_TFTPPUT).
func TFTPPut(board func() *fixture.Board) bool {
	return Describe("tftpput", func() {
		var (
			addr   uint64
			stored *tftp.Memory
			server *tftp.Server
		)
		// serve loads content into the board's memory and starts a server that
		// takes uploads.
		serve := func(ctx SpecContext, content []byte, configure ...func(*tftp.Server)) {
			GinkgoHelper()
			board().RequireCommand(ctx, "tftpput")
			stored = new(tftp.Memory)
			server = board().ServeTFTP(ctx, fstest.MapFS{"content": {Data: content}}, append(configure, func(s *tftp.Server) {
				s.Create = stored.Create
			})...)
			addr = board().TFTPBoot(ctx, "content").Addr
		}

		DescribeTable("uploads a file", func(ctx SpecContext, size int, options uboot.TFTPOptions) {
			content := pattern(size)
			serve(ctx, content)
			board().TFTPPut(ctx, "logs/board.bin", addr, int64(size), options)
			Expect(server).To(fixture.HaveReceived("logs/board.bin").Once())
			upload, whole := stored.Bytes("logs/board.bin")
			Expect(whole).To(BeTrue())
			Expect(crc32.ChecksumIEEE(upload)).To(Equal(crc32.ChecksumIEEE(content)))
			Expect(upload).To(HaveLen(size))
		},
			Entry("of one byte", 1, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of exactly one block", 1468, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of an exact multiple of the block size", 64*1468, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of 1 MiB in blocks of 512", 1<<20, uboot.TFTPOptions{BlockSize: 512}, SpecTimeout(time.Minute)),
			Entry("of 8 MiB", 8<<20, uboot.TFTPOptions{}, SpecTimeout(2*time.Minute)),
		)

		DescribeTable("is told when it may not", func(ctx SpecContext, code tftp.ErrorCode, configure func(*tftp.Server)) {
			serve(ctx, pattern(100_000), configure)
			put := func() error {
				_, err := board().UBoot.TFTPPut(ctx, "board.bin", addr, 100_000, uboot.TFTPOptions{})
				return err
			}
			err := put()
			if code == tftp.CodeFileExists {
				Expect(err).NotTo(HaveOccurred())
				err = put()
			}
			var failure *uboot.TransferError
			Expect(errors.As(err, &failure)).To(BeTrue(), fmt.Sprintf("%v is no *uboot.TransferError", err))
			Expect(failure.Code).To(BeEquivalentTo(code))
			Expect(server.Settled(ctx)).To(Succeed())
		},
			Entry("the file is there already", tftp.CodeFileExists, func(*tftp.Server) {}, SpecTimeout(30*time.Second)),
			Entry("the file is too large", tftp.CodeDiskFull, func(s *tftp.Server) { s.MaxUpload = 5000 }, SpecTimeout(30*time.Second)),
		)
	})
}
