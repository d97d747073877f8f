// Package suites holds spec packs: specs that hold for any board, to import
// into a suite of your own or to run as they are.
//
//	var board *fixture.Board
//
//	var _ = BeforeSuite(func(ctx SpecContext) {
//		board = fixture.NewBoard(ctx, bench.Select(ctx))
//	})
//
//	var _ = suites.TFTPBoot(func() *fixture.Board { return board })
//
// A pack takes a function, since Ginkgo builds the tree of specs before
// BeforeSuite makes the board.
//
// To run the packs as they are on a board of yours:
//
//	BOARDSPEC_BOARD='/dev/ttyUSB0?ipaddr=192.168.7.2/24' go test github.com/boardspec/boardspec/suites
package suites
