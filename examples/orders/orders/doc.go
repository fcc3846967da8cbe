// Package orders has two kinds of entities, orders (event sourced) and customers (values). The YAML
// files in the folder definitions beside it make rows of them, which are queried by customer, by
// status and by city.
package orders
