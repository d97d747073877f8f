package suites_test

import (
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/boardspec/boardspec/fixture"
	"github.com/boardspec/boardspec/fixture/bench"
	"github.com/boardspec/boardspec/suites"
)

var board *fixture.Board

var _ = BeforeSuite(func(ctx SpecContext) {
	board = fixture.NewBoard(ctx, bench.Select(ctx))
}, NodeTimeout(15*time.Minute)) // a container's image may have to be built, with U-Boot from its source

var (
	_ = suites.TFTPBoot(func() *fixture.Board { return board })
	_ = suites.TFTPPut(func() *fixture.Board { return board })
	_ = suites.TFTPSrv(func() *fixture.Board { return board })
	_ = suites.Linux(func() *fixture.Board { return board }, linux())
)

// linux names what ci/linux made, in the directory that BOARDSPEC_LINUX names.
func linux() suites.LinuxFiles {
	files := suites.LinuxFiles{
		Kernel: "Image", DeviceTree: "virt.dtb", Initramfs: "initramfs.cpio.gz",
		FIT: "linux.itb", FITConfig: "virt", PXE: "pxelinux.cfg/default", Bootargs: "quiet panic=0",
	}
	if directory := os.Getenv("BOARDSPEC_LINUX"); directory != "" {
		files.FS = os.DirFS(directory)
	}
	return files
}

func TestSuites(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The suites on the board that BOARDSPEC_BOARD names")
}
