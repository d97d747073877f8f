package suites

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing/fstest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

// TFTPBoot is a pack of specs for U-Boot's tftpboot: files of every kind of
// size, names, block sizes, window sizes, and a file that is missing. Each
// spec proves on both sides what was transferred.
func TFTPBoot(board func() *fixture.Board) bool {
	return Describe("tftpboot", func() {
		// load serves content under a name, loads it, and returns the server's
		// record once both sides agree.
		load := func(ctx SpecContext, name string, content []byte, options uboot.TFTPOptions) tftp.Transfer {
			GinkgoHelper()
			server := board().ServeTFTP(ctx, fstest.MapFS{name: {Data: content}})
			load := board().TFTPBoot(ctx, name, options)
			Expect(server).To(fixture.HaveServed(name).Once())
			Expect(load).To(fixture.MatchServed(server))
			Expect(load.Size).To(BeEquivalentTo(len(content)))
			return server.Transfers()[0]
		}

		DescribeTable("loads a file", func(ctx SpecContext, size int, options uboot.TFTPOptions) {
			load(ctx, "image.bin", pattern(size), options)
		},
			Entry("of one byte", 1, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("that is empty", 0, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of one block less a byte", 1467, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of exactly one block", 1468, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of an exact multiple of the block size", 64*1468, uboot.TFTPOptions{}, SpecTimeout(30*time.Second)),
			Entry("of an exact multiple of 512 in blocks of 512", 64*512, uboot.TFTPOptions{BlockSize: 512}, SpecTimeout(30*time.Second)),
			Entry("of 32 MiB", 32<<20, uboot.TFTPOptions{}, SpecTimeout(2*time.Minute)),
			Entry("of more blocks than 16 bits count", 65536*512+100, uboot.TFTPOptions{BlockSize: 512}, SpecTimeout(4*time.Minute)),
		)

		It("loads a file from a subdirectory", func(ctx SpecContext) {
			load(ctx, "boards/one/image.bin", pattern(100_000), uboot.TFTPOptions{})
		}, SpecTimeout(30*time.Second))

		It("loads a file whose name begins with a slash", func(ctx SpecContext) {
			content := pattern(5000)
			server := board().ServeTFTP(ctx, fstest.MapFS{"image.bin": {Data: content}})
			load := board().TFTPBoot(ctx, "/image.bin")
			Expect(load).To(fixture.MatchServed(server))
		}, SpecTimeout(30*time.Second))

		DescribeTable("asks for and gets a block size", func(ctx SpecContext, size int) {
			transfer := load(ctx, "image.bin", pattern(1<<20), uboot.TFTPOptions{BlockSize: size})
			if asked := transfer.Requested["blksize"]; asked != fmt.Sprint(size) {
				Skip(fmt.Sprintf("this U-Boot asks for blocks of %s bytes, whatever it is told", asked))
			}
			Expect(transfer.BlockSize).To(Equal(size))
		},
			Entry("of 512 bytes", 512, SpecTimeout(time.Minute)),
			Entry("of 1468 bytes", 1468, SpecTimeout(time.Minute)),
		)

		DescribeTable("asks for and gets a window size", func(ctx SpecContext, blocks int) {
			safe, err := board().UBoot.WindowSize(ctx)
			Expect(err).NotTo(HaveOccurred())
			if blocks > safe {
				Skip(fmt.Sprintf("the board's network device takes a window of %d at most", safe))
			}
			transfer := load(ctx, "image.bin", pattern(1<<20), uboot.TFTPOptions{WindowSize: blocks})
			if _, asked := transfer.Requested["windowsize"]; !asked && blocks > 1 {
				Skip("this U-Boot does not ask for windows")
			}
			Expect(transfer.WindowSize).To(Equal(blocks))
		},
			Entry("of 1 block", 1, SpecTimeout(time.Minute)),
			Entry("of 8 blocks", 8, SpecTimeout(time.Minute)),
			Entry("of 16 blocks", 16, SpecTimeout(time.Minute)),
		)

		It("fails at once for a file that is missing", func(ctx SpecContext) {
			server := board().ServeTFTP(ctx, fstest.MapFS{"there": {Data: pattern(10)}})
			_, err := board().UBoot.TFTPBoot(ctx, "missing", uboot.TFTPOptions{})

			Expect(err).To(MatchError(ContainSubstring("File not found")))
			var failure *uboot.TransferError
			Expect(errors.As(err, &failure)).To(BeTrue(), "%T is no *uboot.TransferError", err)
			Expect(server.Settled(ctx)).To(Succeed())
			Expect(server).To(fixture.HaveServed("missing").Times(0))
			Expect(server.Transfers()).To(ConsistOf(And(
				HaveField("Filename", "missing"),
				HaveField("Outcome", tftp.Failed),
				HaveField("Err", MatchError(fs.ErrNotExist)),
			)))
		}, SpecTimeout(10*time.Second))
	})
}

// pattern makes content in which no two places look alike, the same in every
// run.
func pattern(size int) []byte {
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(content)
	return content
}
