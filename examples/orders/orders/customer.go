package orders

import (
	"google.golang.org/grpc/codes"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/sdk"
)

// Customers is the service of customers, ready to be run.
var Customers = sdk.Value("customer",
	sdk.HandleValue(ordersv1.CustomerService_SetCustomer_FullMethodName, setCustomer),
	sdk.HandleValue(ordersv1.CustomerService_DeleteCustomer_FullMethodName, deleteCustomer),
	sdk.HandleValue(ordersv1.CustomerService_GetCustomer_FullMethodName, getCustomer),
)

type customerCommand = sdk.ValueCommand[*ordersv1.Customer]

func setCustomer(cmd *customerCommand, in *ordersv1.SetCustomerRequest) (*ordersv1.Customer, error) {
	if in.GetName() == "" {
		return nil, sdk.Refuse(codes.InvalidArgument, "name is missing: set it to what the customer is called")
	}
	customer := &ordersv1.Customer{CustomerId: cmd.EntityID(), Name: in.GetName(), City: in.GetCity()}
	cmd.Update(customer)
	return customer, nil
}

func deleteCustomer(cmd *customerCommand, _ *ordersv1.DeleteCustomerRequest) (*ordersv1.Customer, error) {
	customer := cmd.State()
	if customer == nil {
		return nil, noCustomer(cmd)
	}
	cmd.Delete()
	return customer, nil
}

func getCustomer(cmd *customerCommand, _ *ordersv1.GetCustomerRequest) (*ordersv1.Customer, error) {
	if cmd.State() == nil {
		return nil, noCustomer(cmd)
	}
	return cmd.State(), nil
}

func noCustomer(cmd *customerCommand) error {
	return sdk.Refuse(codes.NotFound, "there is no customer %s: set it first", cmd.EntityID())
}
