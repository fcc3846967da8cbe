// Package pricing is an action: it keeps no state and computes prices, with all four kinds of gRPC
// methods.
package pricing

import (
	"cmp"
	"iter"

	"google.golang.org/grpc/codes"

	pricingv1 "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	"github.com/millrace-io/millrace/sdk"
)

// Service is the pricing service, ready to be run.
var Service = sdk.Action(
	sdk.Unary(pricingv1.PricingService_Quote_FullMethodName, quote),
	sdk.ServerStream(pricingv1.PricingService_QuoteTiers_FullMethodName, quoteTiers),
	sdk.ClientStream(pricingv1.PricingService_Sum_FullMethodName, sum),
	sdk.Bidi(pricingv1.PricingService_RunningTotal_FullMethodName, runningTotal),
)

// cents is the price list: what one piece of each item costs.
var cents = map[string]int64{"apple": 40, "bread": 320, "cheese": 1250}

// tiers are the quantities from which a discount applies, smallest first.
var tiers = []struct{ quantity, percent int32 }{{1, 0}, {10, 5}, {100, 15}}

// maxQuantity keeps every price within 64 bits.
const maxQuantity = 1_000_000

// price prices a quantity of an item; 0 counts as 1.
func price(itemID string, quantity int32) (*pricingv1.Price, error) {
	quantity = cmp.Or(quantity, 1)
	each, ok := cents[itemID]
	switch {
	case !ok:
		return nil, sdk.Refuse(codes.NotFound, "there is no price for item %q", itemID)
	case quantity < 0 || quantity > maxQuantity:
		return nil, sdk.Refuse(codes.InvalidArgument, "quantity of %s is %d: it must be between 1 and %d", itemID,
			quantity, maxQuantity)
	}
	var discount int32
	for _, tier := range tiers {
		if quantity >= tier.quantity {
			discount = tier.percent
		}
	}
	return &pricingv1.Price{
		Cents: each * int64(quantity) * int64(100-discount) / 100, Quantity: quantity, DiscountPercent: discount,
	}, nil
}

func quote(_ *sdk.ActionCommand, in *pricingv1.QuoteRequest) (*pricingv1.QuoteResponse, error) {
	p, err := price(in.GetItemId(), in.GetQuantity())
	return &pricingv1.QuoteResponse{Price: p}, err
}

func quoteTiers(_ *sdk.StreamCommand, in *pricingv1.QuoteTiersRequest,
	send func(*pricingv1.QuoteTiersResponse) error,
) error {
	for _, tier := range tiers {
		p, err := price(in.GetItemId(), tier.quantity)
		if err != nil {
			return err
		}
		if err := send(&pricingv1.QuoteTiersResponse{Price: p}); err != nil {
			return err
		}
	}
	return nil
}

func sum(_ *sdk.ActionCommand, requests iter.Seq2[*pricingv1.SumRequest, error]) (*pricingv1.SumResponse, error) {
	total := &pricingv1.SumResponse{}
	for in, err := range requests {
		if err != nil {
			return nil, err
		}
		p, err := price(in.GetItem().GetItemId(), in.GetItem().GetQuantity())
		if err != nil {
			return nil, err
		}
		total.Cents += p.GetCents()
		total.Items++
	}
	return total, nil
}

func runningTotal(_ *sdk.StreamCommand, requests iter.Seq2[*pricingv1.RunningTotalRequest, error],
	send func(*pricingv1.RunningTotalResponse) error,
) error {
	var total int64
	for in, err := range requests {
		if err != nil {
			return err
		}
		p, err := price(in.GetItem().GetItemId(), in.GetItem().GetQuantity())
		if err != nil {
			return err
		}
		total += p.GetCents()
		if err := send(&pricingv1.RunningTotalResponse{Cents: total}); err != nil {
			return err
		}
	}
	return nil
}
