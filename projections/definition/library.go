package definition

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 says so for version 5 of a UUID
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

func itoa(n int) string { return strconv.Itoa(n) }

// functionNames are the functions of the library, for fixes.
func functionNames() []string {
	return []string{"sum", "min", "max", "avg", "uuid5", "sortedKeys", "size", "has", "int", "uint", "double", "string"}
}

// functions declares the library. A change of what a function returns is a new Library.
//
//	sum(list)            the sum of numbers or durations; 0 of none; an error on overflow
//	min(list) max(list)  the least or greatest item; an error of none
//	avg(list)            the mean as a double; an error of none
//	uuid5(space, name)   the UUID of a name by RFC 9562, version 5; space is a UUID
//	sortedKeys(map)      the keys of a map in order
func functions() cel.EnvOption {
	return cel.Lib(library{})
}

type library struct{}

// LibraryName returns the name under which an environment has the library once.
func (library) LibraryName() string { return "millrace." + Library }

// ProgramOptions returns none.
func (library) ProgramOptions() []cel.ProgramOption { return nil }

// CompileOptions declares the functions.
func (library) CompileOptions() []cel.EnvOption {
	var sums, means, least, most []cel.FunctionOpt
	for _, zero := range []ref.Val{types.IntZero, types.Uint(0), types.Double(0), types.Duration{}} {
		t := celTypeOf(zero)
		list := []*cel.Type{cel.ListType(t)}
		sums = append(sums, cel.Overload("sum_list_"+t.String(), list, t, cel.UnaryBinding(sum(zero))))
	}
	for _, t := range []*cel.Type{cel.IntType, cel.UintType, cel.DoubleType} {
		means = append(means, cel.Overload("avg_list_"+t.String(), []*cel.Type{cel.ListType(t)}, cel.DoubleType))
	}
	for _, t := range []*cel.Type{
		cel.IntType, cel.UintType, cel.DoubleType, cel.StringType, cel.TimestampType, cel.DurationType,
	} {
		list := []*cel.Type{cel.ListType(t)}
		least = append(least, cel.Overload("min_list_"+t.String(), list, t))
		most = append(most, cel.Overload("max_list_"+t.String(), list, t))
	}
	key := cel.TypeParamType("K")
	return []cel.EnvOption{
		cel.Function("sum", sums...),
		cel.Function("avg", append(means, cel.SingletonUnaryBinding(mean))...),
		cel.Function("min", append(least, cel.SingletonUnaryBinding(extreme(types.IntNegOne)))...),
		cel.Function("max", append(most, cel.SingletonUnaryBinding(extreme(types.IntOne)))...),
		cel.Function("uuid5", cel.Overload("uuid5_string_string", []*cel.Type{cel.StringType, cel.StringType},
			cel.StringType, cel.BinaryBinding(uuid5))),
		cel.Function("sortedKeys", cel.Overload("sorted_keys_map",
			[]*cel.Type{cel.MapType(key, cel.TypeParamType("V"))}, cel.ListType(key), cel.UnaryBinding(sortedKeys))),
	}
}

// callCost is the estimate for a call of the library.
func callCost(z *sizes, function string, args []cost.AstNode) *cost.CallEstimate {
	once := cost.FixedCostEstimate(1)
	switch function {
	case "sum", "avg", "min", "max":
		return &cost.CallEstimate{CostEstimate: once.Add(z.sizeOf(args[0]).MultiplyByCostFactor(1))}
	case "sortedKeys":
		size := z.sizeOf(args[0])
		return &cost.CallEstimate{CostEstimate: once.Add(size.MultiplyByCostFactor(8)), ResultSize: &size}
	case "uuid5":
		size := cost.FixedSizeEstimate(36)
		return &cost.CallEstimate{
			CostEstimate: z.sizeOf(args[1]).MultiplyByCostFactor(0.1).Add(cost.FixedCostEstimate(10)), ResultSize: &size,
		}
	default:
		return nil
	}
}

func (z *sizes) sizeOf(element cost.AstNode) cost.SizeEstimate {
	if size := element.ComputedSize(); size != nil {
		return *size
	}
	if size := z.EstimateSize(element); size != nil {
		return *size
	}
	return cost.SizeEstimate{Max: z.assume}
}

// each calls a function for the items of a list until it returns an error.
func each(list ref.Val, do func(ref.Val) ref.Val) ref.Val {
	items, ok := list.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(list)
	}
	for it := items.Iterator(); it.HasNext() == types.True; {
		if err := do(it.Next()); err != nil {
			return err
		}
	}
	return nil
}

func celTypeOf(v ref.Val) *cel.Type {
	t, _ := v.Type().(*cel.Type)
	return t
}

// sum adds numbers or durations; the sum of none is zero.
func sum(zero ref.Val) func(ref.Val) ref.Val {
	return func(list ref.Val) ref.Val { return add(list, zero) }
}

func add(list, zero ref.Val) ref.Val {
	var total ref.Val
	if err := each(list, func(item ref.Val) ref.Val {
		switch item.(type) {
		case types.Int, types.Uint, types.Double, types.Duration:
		default:
			return types.NewErr("sum: %s is not a number", item.Type().TypeName())
		}
		if total == nil {
			total = item
			return nil
		}
		adder, _ := total.(traits.Adder)
		total = adder.Add(item)
		if types.IsError(total) {
			return total
		}
		return nil
	}); err != nil {
		return err
	}
	if total == nil {
		return zero
	}
	return total
}

func mean(list ref.Val) ref.Val {
	var total, n float64
	if err := each(list, func(item ref.Val) ref.Val {
		v, ok := item.ConvertToType(types.DoubleType).(types.Double)
		if !ok {
			return types.NewErr("avg: %s is not a number", item.Type().TypeName())
		}
		total, n = total+float64(v), n+1
		return nil
	}); err != nil {
		return err
	}
	if n == 0 {
		return types.NewErr("avg: the list is empty")
	}
	if math.IsInf(total, 0) {
		return types.NewErr("avg: overflow")
	}
	return types.Double(total / n)
}

// extreme returns min or max, by what Compare says of an item that takes the place of another.
func extreme(better types.Int) func(ref.Val) ref.Val {
	return func(list ref.Val) ref.Val {
		var best ref.Val
		if err := each(list, func(item ref.Val) ref.Val {
			comparer, ok := item.(traits.Comparer)
			if !ok {
				return types.MaybeNoSuchOverloadErr(item)
			}
			if best == nil {
				best = item
				return nil
			}
			order := comparer.Compare(best)
			if types.IsError(order) {
				return order
			}
			if order.Equal(better) == types.True {
				best = item
			}
			return nil
		}); err != nil {
			return err
		}
		if best == nil {
			return types.NewErr("min and max: the list is empty")
		}
		return best
	}
}

func uuid5(space, name ref.Val) ref.Val {
	id, _ := space.Value().(string)
	text, _ := name.Value().(string)
	bytes, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(bytes) != 16 || len(id) != 36 {
		return types.NewErr("uuid5: the first argument is not a UUID")
	}
	digest := sha1.Sum(append(bytes, text...)) //nolint:gosec // a name, no signature
	digest[6], digest[8] = digest[6]&0x0f|0x50, digest[8]&0x3f|0x80
	out := hex.EncodeToString(digest[:16])
	return types.String(strings.Join([]string{out[:8], out[8:12], out[12:16], out[16:20], out[20:32]}, "-"))
}

func sortedKeys(m ref.Val) ref.Val {
	mapper, ok := m.(traits.Mapper)
	if !ok {
		return types.MaybeNoSuchOverloadErr(m)
	}
	var keys []ref.Val
	for it := mapper.Iterator(); it.HasNext() == types.True; {
		keys = append(keys, it.Next())
	}
	slices.SortFunc(keys, func(a, b ref.Val) int {
		comparer, ok := a.(traits.Comparer)
		if !ok {
			return 0
		}
		order, _ := comparer.Compare(b).(types.Int)
		return int(order)
	})
	return types.NewRefValList(types.DefaultTypeAdapter, keys)
}
