"""PPO with LoRA on one frozen base: policy, reference, reward and critic are adapters and heads."""
