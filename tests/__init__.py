"""Everything that shows that Pulseline does what it promises; one folder a kind of proof."""
