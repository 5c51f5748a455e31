"""What tests of components need: edge cases by name, golden numbers, and the conformance kit."""
