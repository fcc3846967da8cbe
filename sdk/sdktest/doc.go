// Package sdktest tests services of package sdk: given a history, when a command is sent, then the
// service decides these events and this answer.
//
//	sdktest.New(t, cart.Service, "c1").
//		Given(&shopv1.ItemAdded{…}).
//		When(shopv1.CartService_AddItem_FullMethodName, &shopv1.AddItemRequest{…}).
//		ThenEvents(&shopv1.ItemAdded{…}).
//		ThenReply(&shopv1.Cart{…})
//
// Every When does more than run the handler. It encodes and decodes each message, as the log does;
// it rebuilds the entity from its whole history, from a snapshot of now, and from a snapshot of
// before with the events since; and it compares these images with the one in memory, field by
// field, unexported ones included. So a handler that changes state outside of sdk.On, an sdk.On
// that reads the clock, and a snapshot that forgets a field are found by the first test that runs
// them.
//
// A scenario has one entity. For what happens between entities, Worker starts a whole worker in the
// test's process and returns a connection to it:
//
//	w := sdktest.Worker(t, cart.Service)
//	reply, err := shopv1.NewCartServiceClient(w.Conn()).AddItem(t.Context(), &shopv1.AddItemRequest{…})
//
// Its clock moves only when the test advances it, and timers fire by it:
//
//	w.Advance(24 * time.Hour)
//	w.AwaitQuiet()
//
// A Scenario belongs to the goroutine of its test, starts no other, and ends the test at the first
// difference. A worker owns its goroutines, which end with the test.
package sdktest
