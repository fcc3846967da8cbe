package orders_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/examples/orders/orders"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	setCustomer    = ordersv1.CustomerService_SetCustomer_FullMethodName
	deleteCustomer = ordersv1.CustomerService_DeleteCustomer_FullMethodName
	getCustomer    = ordersv1.CustomerService_GetCustomer_FullMethodName
)

func TestACustomerIsSetAndDeleted(t *testing.T) {
	s := sdktest.New(t, orders.Customers, "ada")
	ada := &ordersv1.Customer{CustomerId: "ada", Name: "Ada", City: "London"}
	s.When(getCustomer, &ordersv1.GetCustomerRequest{CustomerId: "ada"}).
		ThenRefused(codes.NotFound, "there is no customer ada: set it first")
	s.When(setCustomer, &ordersv1.SetCustomerRequest{CustomerId: "ada"}).
		ThenRefused(codes.InvalidArgument, "name is missing")
	s.When(setCustomer, &ordersv1.SetCustomerRequest{CustomerId: "ada", Name: "Ada", City: "London"}).
		ThenReply(ada).ThenState(ada)
	s.When(getCustomer, &ordersv1.GetCustomerRequest{CustomerId: "ada"}).ThenReply(ada)
	s.When(deleteCustomer, &ordersv1.DeleteCustomerRequest{CustomerId: "ada"}).ThenReply(ada).ThenState(nil)
	s.When(deleteCustomer, &ordersv1.DeleteCustomerRequest{CustomerId: "ada"}).
		ThenRefused(codes.NotFound, "there is no customer ada")
}
