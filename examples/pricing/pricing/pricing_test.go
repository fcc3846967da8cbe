package pricing_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/examples/pricing/pricing"
	pricingv1 "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	quote        = pricingv1.PricingService_Quote_FullMethodName
	quoteTiers   = pricingv1.PricingService_QuoteTiers_FullMethodName
	sum          = pricingv1.PricingService_Sum_FullMethodName
	runningTotal = pricingv1.PricingService_RunningTotal_FullMethodName
)

func price(cents int64, quantity, percent int32) *pricingv1.Price {
	return &pricingv1.Price{Cents: cents, Quantity: quantity, DiscountPercent: percent}
}

func TestQuote(t *testing.T) {
	s := sdktest.New(t, pricing.Service, "")
	s.When(quote, &pricingv1.QuoteRequest{ItemId: "apple"}).
		ThenReply(&pricingv1.QuoteResponse{Price: price(40, 1, 0)})
	s.When(quote, &pricingv1.QuoteRequest{ItemId: "apple", Quantity: 10}).
		ThenReply(&pricingv1.QuoteResponse{Price: price(380, 10, 5)})
	s.When(quote, &pricingv1.QuoteRequest{ItemId: "pear"}).
		ThenRefused(codes.NotFound, `no price for item "pear"`)
	s.When(quote, &pricingv1.QuoteRequest{ItemId: "apple", Quantity: -1}).
		ThenRefused(codes.InvalidArgument, "between 1 and 1000000")
}

func TestQuoteTiersStreamsOnePriceForEachDiscount(t *testing.T) {
	s := sdktest.New(t, pricing.Service, "")
	s.When(quoteTiers, &pricingv1.QuoteTiersRequest{ItemId: "bread"}).ThenReplies(
		&pricingv1.QuoteTiersResponse{Price: price(320, 1, 0)},
		&pricingv1.QuoteTiersResponse{Price: price(3040, 10, 5)},
		&pricingv1.QuoteTiersResponse{Price: price(27200, 100, 15)},
	)
	s.When(quoteTiers, &pricingv1.QuoteTiersRequest{ItemId: "pear"}).ThenRefused(codes.NotFound, "pear")
}

func TestSumTakesAStream(t *testing.T) {
	s := sdktest.New(t, pricing.Service, "")
	s.When(sum).ThenReply(&pricingv1.SumResponse{})
	s.When(sum,
		&pricingv1.SumRequest{Item: &pricingv1.Item{ItemId: "apple", Quantity: 2}},
		&pricingv1.SumRequest{Item: &pricingv1.Item{ItemId: "cheese"}},
	).ThenReply(&pricingv1.SumResponse{Cents: 1330, Items: 2})
	s.When(sum, &pricingv1.SumRequest{}).ThenRefused(codes.NotFound, "no price")
}

func TestRunningTotalAnswersEachItem(t *testing.T) {
	s := sdktest.New(t, pricing.Service, "")
	s.When(runningTotal,
		&pricingv1.RunningTotalRequest{Item: &pricingv1.Item{ItemId: "apple"}},
		&pricingv1.RunningTotalRequest{Item: &pricingv1.Item{ItemId: "bread"}},
	).ThenReplies(
		&pricingv1.RunningTotalResponse{Cents: 40},
		&pricingv1.RunningTotalResponse{Cents: 360},
	)
	s.When(runningTotal, &pricingv1.RunningTotalRequest{}).ThenRefused(codes.NotFound, "no price")
}
